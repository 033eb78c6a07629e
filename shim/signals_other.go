//go:build !amd64 && !arm64

package shim

import (
	"encoding/binary"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// catch has the caught signals written to the eventfd. The goroutine lives as
// long as the process.
func catch(eventfd int) error {
	signals := make(chan os.Signal, 16)
	for _, one := range caught {
		signal.Notify(signals, one)
	}
	go func() {
		for one := range signals {
			var note [8]byte
			switch one {
			case unix.SIGCHLD:
				binary.NativeEndian.PutUint64(note[:], childCount)
			case unix.SIGUSR1:
				binary.NativeEndian.PutUint64(note[:], dumpCount)
			default:
				continue
			}
			unix.Write(eventfd, note[:])
		}
	}()
	return nil
}
