package supervisor

import (
	"bufio"
	"fmt"
	"os"
	runtimemetrics "runtime/metrics"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/heap"
)

// restAfter is how long nothing must have happened before memory is given back.
const restAfter = 3 * time.Second

// stir says that something has happened. It never waits.
func (s *Supervisor) stir() {
	select {
	case s.stirred <- struct{}{}:
	default: // it has been said
	}
}

// rest gives memory back to the machine whenever nothing has happened for a
// while. Go by itself keeps what a burst of work has needed for minutes, and a
// supervisor does nothing most of the time.
func (s *Supervisor) rest() {
	timer := time.NewTimer(restAfter)
	defer timer.Stop()
	for {
		select {
		case <-s.stirred:
			timer.Reset(restAfter)
			s.burst.end(restAfter)
		case <-timer.C:
			s.burst.end(0)
			giveBack()
			if err := unmapProgram(); err != nil {
				s.logger.Debug("giving back the program's pages", "error", err)
			}
		case <-s.life.Done():
			return
		}
	}
}

// enough is how much of the heap's free memory may stay, in bytes, and
// giveBackTries how often it is tried to come to that.
const enough, giveBackTries = 32 << 10, 8

// giveBack returns to the machine what the heap does not use. What other
// processors keep they keep if something runs there at that moment, if only a
// part of the collection: so it is looked at, and tried again.
func giveBack() {
	heap.GiveBack()
	for try := 0; try < giveBackTries && resident() > enough; try++ {
		heap.GiveBack()
	}
}

// resident returns how much of the heap's free memory is not given back.
func resident() uint64 {
	free := []runtimemetrics.Sample{{Name: "/memory/classes/heap/free:bytes"}}
	runtimemetrics.Read(free)
	return free[0].Value.Uint64()
}

// mapping is one area of this process's memory.
type mapping struct{ start, end uintptr }

// unmapProgram takes this program's own code and constants out of its memory,
// two thirds of which only its start needs: the kernel maps what is called
// again from its cache, sixteen pages at a time.
func unmapProgram() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer smaps.Close()
	areas, err := unchanged(bufio.NewScanner(smaps), program)
	if err != nil {
		return err
	}
	for _, area := range areas {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, area.start, area.end-area.start, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("madvise: %w", errno)
		}
	}
	return nil
}

// unchanged returns the areas of smaps, proc(5), that map program for reading
// and hold nothing but what is in that file: of one with relocated pages, as a
// position-independent program has them, these would be lost.
func unchanged(smaps *bufio.Scanner, program string) (areas []mapping, err error) {
	var area mapping
	candidate := false
	for smaps.Scan() {
		fields := strings.Fields(smaps.Text())
		switch {
		case len(fields) >= 5 && !strings.HasSuffix(fields[0], ":"):
			candidate = len(fields) == 6 && fields[5] == program && (fields[1] == "r-xp" || fields[1] == "r--p")
			if _, err := fmt.Sscanf(fields[0], "%x-%x", &area.start, &area.end); err != nil {
				return nil, fmt.Errorf("an area of memory is %q: %w", fields[0], err)
			}
		case candidate && len(fields) == 3 && fields[0] == "Anonymous:" && fields[1] == "0":
			areas = append(areas, area)
		}
	}
	return areas, smaps.Err()
}
