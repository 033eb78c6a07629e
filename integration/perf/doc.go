// Package perf measures, it asserts nothing about speed: figures of one machine
// and one minute hold nowhere else, ratios taken in one interleaved run do.
//
//	make bench                      all tables, some minutes
//	go test ./integration/perf      every measurement with a few samples, to keep it alive
//
// Each table has its contenders take turns, one sample each, so that what the
// machine does meanwhile falls on all alike, and a sample that another program took
// time from is taken again. Ratios are of medians.
package perf
