package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

// watchSignals deals with what neither stops nor starts anything. USR1 writes
// every goroutine's stack to the log. PIPE is caught and dropped: standard error
// may be a pipe whose reader, engined, has died.
func watchSignals() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	dumps := make(chan os.Signal, 1)
	signal.Notify(dumps, syscall.SIGUSR1)
	go func() {
		for range dumps {
			// Not through the logger, which would put it on one line.
			fmt.Fprintf(os.Stderr, "=== BEGIN goroutine stack dump ===\n%s\n=== END goroutine stack dump ===\n", stacks())
		}
	}()
}

func stacks() string {
	for size := 1 << 20; ; size *= 2 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size {
			return string(buf[:n])
		}
	}
}
