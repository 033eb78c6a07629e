package perf

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bystanders are programs of the machine that nobody here measures, by their pids:
// what they do takes time from who is measured, and some do the more the more
// processes there are.
type bystanders []int

// others are those that were there before us, for figures worth quoting; else none, as
// tests of other packages run beside.
var others bystanders

func lookAround() bystanders {
	var found bystanders
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		pid, _ := strconv.Atoi(filepath.Base(process))
		if _, err := os.Readlink(process + "/exe"); err == nil && pid != os.Getpid() { // the kernel's threads have none
			found = append(found, pid)
		}
	}
	return found
}

// ran is the processor time that they have taken, all their threads (clock_getcpuclockid(3)).
func (b bystanders) ran() (sum time.Duration) {
	const scheduled = 2
	for _, pid := range b {
		var taken unix.Timespec
		if unix.ClockGettime(int32(^pid<<3|scheduled), &taken) == nil { // else it has ended
			sum += time.Duration(taken.Nano())
		}
	}
	return sum
}

// A sample is disturbed if bystanders took more than this part of its time, and then is
// taken again, twice at most: a machine may be busy.
const (
	disturbance = 50
	tries       = 3
)

// sample takes one after idleness.
func (c contender) sample(idle time.Duration, others bystanders) (took time.Duration, err error) {
	for range tries {
		time.Sleep(idle) // what is measured: a start after idleness
		before, began := others.ran(), time.Now()
		err := c.once()
		took = time.Since(began)
		disturbed := others.ran() - before
		if err == nil && c.tidy != nil {
			err = c.tidy()
		}
		if err != nil {
			return 0, err
		}
		if disturbed <= took/disturbance {
			break
		}
	}
	return took, nil
}

func TestDisturbedSamplesAreTakenAgain(t *testing.T) {
	busy := exec.Command("/bin/sh", "-c", "while :; do :; done")
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = busy.Process.Kill()
		_ = busy.Wait()
	}()
	for _, test := range []struct {
		around bystanders
		want   int
	}{{nil, 1}, {bystanders{busy.Process.Pid}, tries}} {
		taken := 0
		once := func() error {
			taken++
			for began := test.around.ran(); test.around != nil && test.around.ran()-began < 10*time.Millisecond; {
			}
			return nil
		}
		if _, err := (contender{once: once}).sample(0, test.around); err != nil || taken != test.want {
			t.Errorf("beside %v: taken %d times, %v, want %d", test.around, taken, err, test.want)
		}
	}
	if all := lookAround(); len(all) == 0 || all.ran() < 10*time.Millisecond {
		t.Errorf("the machine's programs are %v and ran for %v", all, all.ran())
	}
}
