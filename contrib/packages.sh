#!/bin/sh
# packages.sh run|test: installs the Debian packages that `make run` or
# `make test` needs and that are missing, and says which. Services that come
# with them are not started. On other systems it only says what is missing.
set -eu

# build and first image
run_packages="gcc libc6-dev musl-tools busybox-static ca-certificates"
# reference engines and runtimes, and the tools that the tests look at the system with
test_packages="libseccomp-dev docker.io docker-cli docker-registry runc crun podman skopeo umoci uidmap iproute2 nftables debootstrap procps btrfs-progs xfsprogs"

case "${1:-}" in
run) wanted=$run_packages ;;
test) wanted="$run_packages $test_packages" ;;
*)
	echo "usage: packages.sh run|test" >&2
	exit 2
	;;
esac

if ! command -v dpkg-query >/dev/null; then
	echo "packages: not a Debian system; needed here is what Debian calls: $wanted" >&2
	exit 0
fi

installed() {
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# docker-cli is a package of its own from Debian 13 on; before, docker.io has it.
exists() {
	[ -n "$(apt-cache policy "$1" 2>/dev/null)" ]
}

missing=""
for package in $wanted; do
	installed "$package" || missing="$missing $package"
done
# docker-cli alone is no reason to ask the archive when an older docker.io is there.
if [ "$missing" = " docker-cli" ] && [ -x /usr/bin/docker ]; then
	missing=""
fi
if [ -z "$missing" ]; then
	echo "packages: all there"
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	echo "packages: missing:$missing (root is needed to install them)" >&2
	exit 1
fi

apt-get update -qq
available=""
for package in $missing; do
	if exists "$package"; then
		available="$available $package"
	elif [ "$package" != docker-cli ]; then
		echo "packages: the archive has no $package" >&2
	fi
done
if [ -z "$available" ]; then
	exit 0
fi
echo "packages: installing$available"

# invoke-rc.d starts nothing while this file says no (status 101).
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $available </dev/null
