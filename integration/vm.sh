#!/bin/sh
# Runs black-box tests in a virtual machine with pure cgroup v2, whose root is a
# view of this machine's: `make vm`, or with options of the machine's tool
#
#	VM_FLAGS=--apparmor integration/vm.sh oci
#
# The machine is emulated where there is no nested virtualisation, and then 5 to
# 20 times slower: test programs are compiled here, and tests multiply their
# time-outs by what bundle.Patience says.
#
#	VM_TOOL    starts the machine: TOOL [option]... -- command
#	VM_FLAGS   its options: --apparmor, --systemd, --selinux, ...
#	VM_ARGS    options of the test programs: -test.run=..., -test.v
#	VM_SKIP    tests that cannot run there
set -eu
cd "$(dirname "$0")/.."
tool=${VM_TOOL:-../shared/tools/vm-run}
# The validation programs are compiled by their test, which takes hours there.
skip=${VM_SKIP:-TestValidation}
[ $# -gt 0 ] || set -- oci
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for room; do
	go test -c -o "$out/$room" "./integration/$room"
done
go build -tags 'netgo osusergo seccomp failpoints' \
	-ldflags '-s -w -linkmode external -extldflags "-static -Wl,--wrap=main"' -o bin/ocirun-failpoints ./cmd/ocirun
status=0
# shellcheck disable=SC2016,SC2086
"$tool" --mem 3G --timeout 5400 ${VM_FLAGS:-} -- sh -c '
	out=$1; shift; skip=$1; shift; args=$1; shift; failed=0
	for room; do
		echo "== $room"
		(cd "integration/$room" && "$out/$room" -test.timeout=80m "-test.skip=$skip" $args) || failed=1
	done
	exit $failed' vm "$out" "$skip" "${VM_ARGS:-}" "$@" || status=$?
rm -f bin/ocirun-failpoints # the tests here build their own
exit $status
