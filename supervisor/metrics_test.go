package supervisor_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	api "github.com/engined/engined/proto/supervisor/v1"
)

// metricsOf reads every sample of the exposition.
func metricsOf(t *testing.T, socket string) map[string]float64 {
	t.Helper()
	samples := map[string]float64{}
	lines := bufio.NewScanner(strings.NewReader(get(t, socket, "/metrics")))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		space := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[space+1:], 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		samples[line[:space]] = value
	}
	return samples
}

func get(t *testing.T, socket, path string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	answer, err := client.Get("http://supervisor" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v, %s", path, answer.Status, err, body)
	}
	return string(body)
}

func TestMetricsTellWhatIsAndWhatWas(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "metrics.sock")
	s := newStack(t, "--metrics-address", "unix://"+socket, "--workers", "3")
	s.run("a", "exec sleep 1000")
	s.run("b", "exit 3")
	s.wait("b", "")
	if _, err := s.client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: "c", BundlePath: "/nosuch"}); err == nil {
		t.Error("a container of a bundle that is not there")
	}
	samples := metricsOf(t, socket)
	for name, want := range map[string]float64{
		`engined_supervisor_containers{status="running"}`:                              1,
		`engined_supervisor_containers{status="stopped"}`:                              1,
		`engined_supervisor_containers{status="paused"}`:                               0,
		"engined_supervisor_shims":                                                     2,
		"engined_supervisor_queue_tasks":                                               0,
		"engined_supervisor_workers":                                                   3,
		"engined_supervisor_workers_busy":                                              0,
		"engined_supervisor_workers_awaited":                                           0,
		"engined_supervisor_start_seconds_count":                                       2,
		`engined_supervisor_start_seconds_bucket{le="+Inf"}`:                           2,
		`engined_supervisor_request_seconds_count{method="CreateContainer",code="OK"}`: 2,
	} {
		if got, there := samples[name]; got != want || !there {
			t.Errorf("%s is %v, expected %v", name, got, want)
		}
	}
	for _, name := range []string{"engined_supervisor_events_total", "process_open_fds", "process_resident_memory_bytes", "go_goroutines", "engined_supervisor_start_seconds_sum"} {
		if samples[name] <= 0 {
			t.Errorf("%s is %v", name, samples[name])
		}
	}
	if profile := get(t, socket, "/debug/pprof/goroutine?debug=1"); !strings.Contains(profile, "supervisor.(*Supervisor).loop") {
		t.Errorf("no loop among the goroutines:\n%s", profile)
	}
}
