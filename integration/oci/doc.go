// Package oci compares runtimes: the same bundles under runc, crun and ocirun
// must have the same observable result: exit status, output, and what the
// process sees of itself in /proc.
//
// cases_test.go has the bundles, each a change to the plain spec. Where runc and
// crun agree ocirun has to agree too; where they do not, with one of them.
// Everything else is in differences.txt with its reason, or fails; a line there
// that explains nothing any more fails as well.
//
// verbs_test.go goes through create, start, state, exec, list, kill and delete.
package oci
