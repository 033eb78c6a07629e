// Package oci compares runtimes: the same bundles under runc, crun and ocirun
// must have the same observable result: exit status, output, and what the
// process sees of itself in /proc.
//
// cases_test.go has the bundles, each a change to the plain spec. Where runc and
// crun agree ocirun has to agree too; where they do not, with one of them.
// Everything else is in differences.txt with its reason, or fails; a line there
// that explains nothing any more fails as well.
//
// generated_test.go adds a bundle for each value of fields that take many.
// validation_test.go runs the validation programs of the OCI runtime-tools,
// which the module in validation/ names, against the table validation.txt.
// engines_test.go and dockerd_test.go have podman, containerd and dockerd run
// containers with ocirun.
//
// faults_test.go kills ocirun, the stage of the container's process, and both,
// at each fail point of an ocirun built with them; OCI_TEST_FULL=1 tries every
// way at every operation, 3,000 deaths in some minutes.
//
// fallbacks_test.go takes away system calls that an older kernel does not have,
// each alone and all together, and wants the same result.
//
// verbs_test.go goes through create, start, state, exec, list, kill and delete.
//
// integration/vm.sh, that is make vm, runs all of it under pure cgroup v2.
package oci
