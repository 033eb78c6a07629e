package engined

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// forceAfter is how many TERMs or INTs end engined at once.
const forceAfter = 3

// signals turns signals into what they mean, until stop is called.
//
//	TERM, INT  the context ends; the third one ends the process
//	HUP        reload
//	USR1       every goroutine's stack, to standard error
type signals struct {
	reload chan struct{} // capacity 1
	stop   func()
}

func watchSignals(ctx context.Context) (context.Context, *signals) {
	ctx, cancel := context.WithCancel(ctx)
	caught := make(chan os.Signal, 8)
	signal.Notify(caught, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1)
	s := &signals{reload: make(chan struct{}, 1)}
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() { s.run(caught, done, cancel) })
	s.stop = func() {
		signal.Stop(caught)
		close(done)
		running.Wait()
		cancel()
	}
	return ctx, s
}

func (s *signals) run(caught <-chan os.Signal, done <-chan struct{}, cancel context.CancelFunc) {
	terms := 0
	for {
		select {
		case <-done:
			return
		case got := <-caught:
			switch got {
			case unix.SIGHUP:
				select {
				case s.reload <- struct{}{}:
				default: // one is due already
				}
			case unix.SIGUSR1:
				dumpStacks(os.Stderr)
			default:
				cancel()
				if terms++; terms == forceAfter {
					fmt.Fprintln(os.Stderr, "engined: third signal, ending at once")
					os.Exit(128 + int(got.(unix.Signal)))
				}
			}
		}
	}
}

// dumpStacks writes every goroutine's stack between marks that tools look for.
func dumpStacks(w io.Writer) {
	buffer := make([]byte, 64<<10)
	for {
		n := runtime.Stack(buffer, true)
		if n < len(buffer) {
			buffer = buffer[:n]
			break
		}
		buffer = make([]byte, 2*len(buffer))
	}
	fmt.Fprintf(w, "=== BEGIN goroutine stack dump ===\n%s\n=== END goroutine stack dump ===\n", buffer)
}
