// Package cli is tested through command line clients: the stock docker of every
// version that is installed, and engined's own.
//
// testdata/*.txt are transcripts. Each is carried out by every stock docker
// client twice, on engined and on Debian's dockerd, and the two answers are
// compared after ids, times and addresses have been replaced by words.
//
//	# what this step shows
//	$ docker run --rm busybox sh -c 'exit 7'     shell, with docker on PATH
//	? 7                                          exit status, default 0
//	> text                                       a line of stdout (optional; all of stdout if there is one)
//	~ reason                                     why engined's answer differs from dockerd's here
//
// A step with a reason that no longer differs fails, so that the reasons stay
// true. Statuses and lines are asserted on both engines where they agree; without
// a dockerd they are all there is.
//
// What needs a terminal or goes on while something else happens is written in
// Go (terminal_test.go, follow_test.go).
package cli
