package supervisor

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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

// cachedPages is how many pages Go's allocator keeps for each processor, and
// pageSize is theirs.
const cachedPages, pageSize = 64, 8 << 10

// enough is how much free memory may stay resident, and giveBackTries how often
// it is tried to come to that.
const enough, giveBackTries = 4 * pageSize, 8

// giveBack returns to the machine what the heap does not use. A collection takes
// from every processor the free pages that are its own, except where something
// runs at that moment, itself or a part of the collection: half a megabyte at
// each may be resident, or not. So it is looked at, and tried again.
func giveBack() {
	runtime.GC() // what pools hold outlives one collection
	debug.FreeOSMemory()
	for try := 0; try < giveBackTries && resident() > enough; try++ {
		takePages()
		debug.FreeOSMemory()
	}
}

// takePages takes as many pages as this processor may keep, so that it has to
// fetch others, of those given back before; what was taken becomes garbage.
func takePages() {
	taken := make([][]byte, cachedPages)
	for i := range taken {
		taken[i] = make([]byte, pageSize)
	}
	runtime.KeepAlive(taken)
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
