package container

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
)

// ticks is USER_HZ: what times in /proc/PID/stat are counted in, on every
// architecture that this engine runs on.
const ticks = 100

// listProcesses is `ps -ef` for a machine that has no ps(1). Users are numbers
// and no terminal is named.
func listProcesses(pids []int) apicontainer.TopResponse {
	top := apicontainer.TopResponse{
		Titles:    []string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"},
		Processes: [][]string{},
	}
	booted := bootTime()
	for _, pid := range pids {
		if line, ok := processLine(pid, booted, time.Now()); ok {
			top.Processes = append(top.Processes, line)
		}
	}
	return top
}

// processLine reads one process; it may be gone.
func processLine(pid int, booted, now time.Time) ([]string, bool) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return nil, false
	}
	// proc(5): the name, second, is in parentheses and may hold anything.
	end := bytes.LastIndexByte(stat, ')')
	begin := bytes.IndexByte(stat, '(')
	fields := strings.Fields(string(stat[end+1:]))
	if begin < 0 || end < begin || len(fields) < 20 {
		return nil, false
	}
	number := func(field int) int64 { // counted as proc(5) does, from 1
		n, _ := strconv.ParseInt(fields[field-3], 10, 64)
		return n
	}
	const ppid, utime, stime, startTime = 4, 14, 15, 22
	used := time.Duration(number(utime)+number(stime)) * time.Second / ticks
	start := booted.Add(time.Duration(number(startTime)) * time.Second / ticks)
	info, err := os.Stat(dir)
	if err != nil {
		return nil, false
	}
	command := "[" + string(stat[begin+1:end]) + "]"
	if line, err := os.ReadFile(dir + "cmdline"); err == nil && len(line) > 0 {
		command = string(bytes.ReplaceAll(bytes.TrimRight(line, "\x00"), []byte{0}, []byte{' '}))
	}
	return []string{
		ownerOf(info), strconv.Itoa(pid), strconv.FormatInt(number(ppid), 10), share(used, now.Sub(start)),
		startText(start, now), "?", clock(used), command,
	}, true
}

// share is the percentage of one processor used, as ps's column C.
func share(used, lived time.Duration) string {
	if lived <= 0 {
		return "0"
	}
	return strconv.Itoa(min(int(100*used/lived), 99))
}

func startText(start, now time.Time) string {
	if now.Sub(start) < 24*time.Hour && start.Day() == now.Day() {
		return start.Format("15:04")
	}
	return start.Format("Jan02")
}

func clock(d time.Duration) string {
	return fmt.Sprintf("%02d:%02d:%02d", int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60)
}

// bootTime is when the machine started, from /proc/stat.
func bootTime() time.Time {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}
	}
	for line := range strings.SplitSeq(string(stat), "\n") {
		if seconds, found := strings.CutPrefix(line, "btime "); found {
			n, _ := strconv.ParseInt(seconds, 10, 64)
			return time.Unix(n, 0)
		}
	}
	return time.Time{}
}
