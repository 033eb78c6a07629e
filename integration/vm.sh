#!/bin/bash
# Runs packages' tests in a virtual machine with pure cgroup v2, whose root is a
# view of this machine's: `make vm`, or with options of the machine's tool
#
#	VM_FLAGS=--apparmor integration/vm.sh integration/oci libcontainer
#
# The machine is emulated where there is no nested virtualisation, and then 5 to
# 20 times slower: all programs are compiled here, and tests multiply their
# time-outs by what bundle.Patience says. The end of the output is that of
# `make test`: why tests were skipped, and how many passed and failed.
#
#	VM_TOOL    starts the machine: TOOL [option]... -- command
#	VM_FLAGS   its options: --apparmor, --systemd, --selinux, ...
#	VM_ARGS    options of the test programs: -test.run=..., ...
#	VM_SKIP    tests to leave out, a regular expression
#	VM_LOG     file that gets all events, as they come
#	ENGINED_VALIDATION_PROGRAMS  where the validation programs are, or shall be
#	VM_BEFORE  shell commands for the machine, before the tests
set -euo pipefail
cd "$(dirname "$0")/.."
case $PWD/ in /tmp/*)
	echo "vm.sh: $PWD is not in the machine, whose /tmp is another: clone to somewhere else" >&2
	exit 2
	;;
esac
tool=${VM_TOOL:-../shared/tools/vm-run}
[ $# -gt 0 ] || set -- integration/oci
out=$(mktemp -d /var/tmp/engined-vm.XXXXXX) # /tmp is another there
trap 'rm -rf "$out"' EXIT

# What is built here meanwhile must not be seen there, by halves.
cp -R bin "$out/bin"
for room; do
	mkdir -p "$out/tests/$room"
	go test -c -tags 'netgo osusergo seccomp' -o "$out/tests/$room/all" "./$room"
done
go build -o "$out/test2json" cmd/test2json
go build -o "$out/summary" ./integration/cmd/summary
make -s failpoints OUT="$out/bin/ocirun-failpoints"
programs=${ENGINED_VALIDATION_PROGRAMS:-$out/programs}
[ -d "$programs" ] || (
	cd integration/oci/validation
	export CGO_ENABLED=0 GOWORK=off GOFLAGS=-buildvcs=false
	tools=github.com/opencontainers/runtime-tools
	go build -o "$programs/" $tools/cmd/runtimetest $tools/validation/...
	cp "$(go list -m -f '{{.Dir}}' $tools)/rootfs-amd64.tar.gz" "$programs/"
)

# A machine that dies leaves tests that did not end, which the summary counts.
# shellcheck disable=SC2016
inside='
	chmod 1777 /tmp
	export ENGINED_BIN="$1/bin" ENGINED_VALIDATION_PROGRAMS="$2"
	out=$1 skip=$3 args=$4; shift 4
	for room; do
		(cd "$room" && "$out/tests/$room/all" -test.v=test2json -test.timeout=3h "-test.skip=$skip" $args 2>&1) |
			"$out/test2json" -t -p "$room"
	done'
# The tool's own -- is out of the summary's sight, which splits commands there.
# shellcheck disable=SC2016
"$out/summary" -- bash -o pipefail -c '
	tool=$1 flags=$2 log=$3 inside=$4; shift 4
	"$tool" --mem 3G --timeout 10800 --ext4 /tmp $flags -- sh -c "$inside" vm "$@" | tee "$log"' vm \
	"$tool" "${VM_FLAGS:-}" "${VM_LOG:-/dev/null}" "${VM_BEFORE:-:}; $inside" \
	"$out" "$programs" "${VM_SKIP:-^$}" "${VM_ARGS:-}" "$@"
