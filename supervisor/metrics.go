package supervisor

import (
	"fmt"
	"io"
	"maps"
	"os"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/status"
)

// metrics counts what the supervisor has done since its start. What is so now is
// asked when somebody reads.
type metrics struct {
	busy    atomic.Int64 // workers that start a container
	waiting atomic.Int64 // containers that wait for a worker
	readers atomic.Int64 // of Events

	mu       sync.Mutex // guards what follows
	started  histogram
	failed   uint64
	requests map[request]*total
}

// request is one way in which calls end.
type request struct{ method, code string }

// total is how many there were and how long they took together.
type total struct {
	count uint64
	took  time.Duration
}

// startBounds are the histogram's upper bounds.
var startBounds = [...]time.Duration{
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 10 * time.Second,
}

type histogram struct {
	total
	within [len(startBounds)]uint64 // at most so long; each includes those before it
}

func (h *histogram) add(took time.Duration) {
	h.count++
	h.took += took
	for i, bound := range startBounds {
		if took <= bound {
			h.within[i]++
		}
	}
}

// noteStart counts one start of a container by a worker.
func (m *metrics) noteStart(took time.Duration, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.failed++
		return
	}
	m.started.add(took)
}

// noteRequest counts one call; err is the status that it was answered with.
func (m *metrics) noteRequest(method string, took time.Duration, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.requests == nil {
		m.requests = map[request]*total{}
	}
	key := request{method[strings.LastIndexByte(method, '/')+1:], status.Code(err).String()}
	if m.requests[key] == nil {
		m.requests[key] = &total{}
	}
	m.requests[key].count++
	m.requests[key].took += took
}

// exposition writes Prometheus' text format.
type exposition struct{ io.Writer }

func (e exposition) family(name, kind, help string) {
	fmt.Fprintf(e, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

func (e exposition) gauge(name, help string, value any) {
	e.family(name, "gauge", help)
	fmt.Fprintf(e, "%s %v\n", name, value)
}

func (e exposition) counter(name, help string, value any) {
	e.family(name, "counter", help)
	fmt.Fprintf(e, "%s %v\n", name, value)
}

// writeMetrics writes all that is known.
func (s *Supervisor) writeMetrics(w io.Writer) error {
	e := exposition{w}
	if err := s.writeContainers(e); err != nil {
		return err
	}
	tasks, containers := s.queues.depth()
	e.gauge("engined_supervisor_queue_tasks", "Requests queued or at work on a container.", tasks)
	e.gauge("engined_supervisor_queue_containers", "Containers that have such requests.", containers)
	e.gauge("engined_supervisor_workers", "Containers that may start at the same time.", s.config.Workers)
	e.gauge("engined_supervisor_workers_busy", "Containers that start now.", s.metrics.busy.Load())
	e.gauge("engined_supervisor_workers_awaited", "Containers that wait for a worker.", s.metrics.waiting.Load())
	e.counter("engined_supervisor_events_total", "Sequence number of the last event in the journal.", s.journal.last())
	e.gauge("engined_supervisor_events_oldest", "Sequence number of the oldest event in the journal.", s.journal.oldest())
	e.gauge("engined_supervisor_events_readers", "Calls of Events under way.", s.metrics.readers.Load())
	s.metrics.write(e)
	return writeProcess(e)
}

func (s *Supervisor) writeContainers(e exposition) error {
	byStatus := map[string]int{statusCreated: 0, statusRunning: 0, statusPaused: 0, statusStopped: 0}
	shims := 0
	err := s.ask(func(t *table) error {
		for _, c := range t.containers {
			byStatus[c.status]++
			if c.handle.ShimPid() > 0 {
				shims++
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	e.family("engined_supervisor_containers", "gauge", "Containers that are not deleted.")
	for _, name := range slices.Sorted(maps.Keys(byStatus)) {
		fmt.Fprintf(e, "engined_supervisor_containers{status=%q} %d\n", name, byStatus[name])
	}
	e.gauge("engined_supervisor_shims", "Containers that have a shim.", shims)
	spare := 0
	if s.host.Reserve.Kept() {
		spare = 1
	}
	e.gauge("engined_supervisor_spare_shims", "Shims that wait for a container.", spare)
	return nil
}

func (m *metrics) write(e exposition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.counter("engined_supervisor_start_failures_total", "Containers that could not be started.", m.failed)
	const starts = "engined_supervisor_start_seconds"
	e.family(starts, "histogram", "How long containers took to be created and started.")
	for i, bound := range startBounds {
		fmt.Fprintf(e, "%s_bucket{le=\"%v\"} %d\n", starts, bound.Seconds(), m.started.within[i])
	}
	fmt.Fprintf(e, "%s_bucket{le=\"+Inf\"} %d\n%s_sum %v\n%s_count %d\n", starts, m.started.count, starts, m.started.took.Seconds(), starts, m.started.count)
	const requests = "engined_supervisor_request_seconds"
	e.family(requests, "summary", "Calls by method and status, and how long they took.")
	keys := slices.SortedFunc(maps.Keys(m.requests), func(a, b request) int {
		return strings.Compare(a.method+" "+a.code, b.method+" "+b.code)
	})
	for _, key := range keys {
		labels := fmt.Sprintf("{method=%q,code=%q}", key.method, key.code)
		fmt.Fprintf(e, "%s_sum%s %v\n%s_count%s %d\n", requests, labels, m.requests[key].took.Seconds(), requests, labels, m.requests[key].count)
	}
}

// writeProcess writes what is known of every program under these names.
func writeProcess(e exposition) error {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return err
	}
	var pages, resident int
	if _, err := fmt.Sscan(string(statm), &pages, &resident); err != nil {
		return fmt.Errorf("reading /proc/self/statm: %w", err)
	}
	e.gauge("process_open_fds", "Open descriptors.", len(open)-1) // the directory's own
	e.gauge("process_resident_memory_bytes", "Resident memory.", resident*os.Getpagesize())
	e.gauge("go_goroutines", "Goroutines.", goruntime.NumGoroutine())
	return nil
}
