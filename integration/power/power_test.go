package power

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/engined/engined/integration/harness"
	"github.com/engined/engined/integration/images"
)

const (
	guestEnv  = "ENGINED_POWER_GUEST" // the shared directory, in the guest
	names     = 8                     // images in the registry
	bootTime  = 5 * time.Minute
	diskSize  = 1 << 30
	firstLine = "up"
)

// TestPowerCuts is the host's part.
func TestPowerCuts(t *testing.T) {
	rounds, err := strconv.Atoi(os.Getenv("ENGINED_POWER"))
	program := os.Getenv("ENGINED_VM_RUN")
	if err != nil || program == "" {
		t.Skip("set ENGINED_POWER to a number of rounds and ENGINED_VM_RUN to a program; see doc.go")
	}
	harness.NeedRoot(t)
	dir := t.TempDir()
	makeDisk(t, filepath.Join(dir, "disk.img"))
	fill(t, filepath.Join(dir, "registry"))
	during := map[string]int{} // cuts, by what was going on
	for round := range rounds {
		m := boot(t, program, dir, "")
		if !m.await(firstLine) {
			t.Fatalf("round %d: the machine does not come up, or something is not whole:\n%s", round, m.said())
		}
		time.Sleep(time.Duration(2000+rand.IntN(10000)) * time.Millisecond) // the moment is the test's input
		m.kill()
		now := underWay(t, dir)
		during[now]++
		fmt.Printf("  cut %2d while %s; %d pulls reported done until now\n", round+1, now, count(t, dir, "done"))
	}
	last := boot(t, program, dir, "look")
	if err := last.wait(); err != nil {
		t.Fatalf("after the last cut: %v\n%s", err, last.said())
	}
	done := count(t, dir, "done")
	fmt.Printf("  %d cuts, %d of them during a pull and %d during a removal; %d pulls were reported done\n", rounds, during["pulling"], during["removing"], done)
	if done < rounds/3 || during["pulling"] < rounds/5 {
		t.Error("too few to have shown anything")
	}
}

func makeDisk(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err == nil {
		err = file.Truncate(diskSize)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", path).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
}

// fill puts the images into a registry's directory.
func fill(t *testing.T, dir string) {
	t.Helper()
	registry := harness.RegistryOf(t, dir)
	base := images.Layer(t, 1, 400<<10)
	for i := range names {
		images.Put(t, registry.Host+"/"+image(i), images.Image(t, image(i), base, images.Layer(t, uint64(10+i), 600<<10), images.Layer(t, uint64(50+i), 200<<10)))
	}
}

func image(i int) string { return fmt.Sprintf("power/image%d:1", i) }

// machine is a run of the guest.
type machine struct {
	cmd    *exec.Cmd
	log    string
	seen   int // lines in the log before it began
	out    string
	exited chan struct{}
	err    error // read after exited
}

func boot(t *testing.T, program, dir, task string) *machine {
	t.Helper()
	m := &machine{log: filepath.Join(dir, "log.txt"), out: filepath.Join(t.TempDir(), "out"), exited: make(chan struct{})}
	m.seen = len(linesOf(m.log))
	out, err := os.Create(m.out)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m.cmd = exec.Command(program, "--mem", "2G", "--timeout", "900", "--rw", dir, "--env", guestEnv+"="+dir, "--env", "ENGINED_BIN="+filepath.Dir(harness.Binary("engined")),
		"--", self, "-test.run=^TestInTheMachine$", "-test.v", "-test.timeout=0", "-task="+task)
	m.cmd.Stdout, m.cmd.Stderr = out, out
	m.cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir()) // what it leaves behind when it is killed
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the machine; kill and wait wait for it
		m.err = m.cmd.Wait()
		close(m.exited)
	}()
	t.Cleanup(m.kill)
	return m
}

func (m *machine) kill() {
	_ = m.cmd.Process.Kill()
	<-m.exited
}

func (m *machine) wait() error {
	<-m.exited
	return m.err
}

// await waits for a line of the guest's.
func (m *machine) await(line string) bool {
	for end := time.Now().Add(bootTime); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, said := range linesOf(m.log)[m.seen:] {
			if said == line {
				return true
			}
		}
		select {
		case <-m.exited:
			return false
		default:
		}
	}
	return false
}

func (m *machine) said() string {
	out, _ := os.ReadFile(m.out)
	return string(out[max(0, len(out)-6000):])
}

// linesOf are the whole lines of the log.
func linesOf(path string) (lines []string) {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		lines = append(lines, scanner.Text())
	}
	return lines
}

// count counts the lines of the log that begin with a word.
func count(t *testing.T, dir, word string) (n int) {
	t.Helper()
	for _, line := range linesOf(filepath.Join(dir, "log.txt")) {
		if first, _, _ := strings.Cut(line, " "); first == word {
			n++
		}
	}
	return n
}

// underWay is what the guest was at, by the log's last line.
func underWay(t *testing.T, dir string) string {
	t.Helper()
	lines := linesOf(filepath.Join(dir, "log.txt"))
	word, _, _ := strings.Cut(lines[len(lines)-1], " ")
	if word != "pulling" && word != "removing" {
		return "between two"
	}
	return word
}

// must is for what has to go well in the guest.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
