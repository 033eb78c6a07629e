package perf

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/engined/engined/integration/bundle"
)

var full = flag.Bool("full", false, "as many samples as figures worth quoting need")

func TestMain(m *testing.M) {
	if address := os.Getenv(askVariable); address != "" {
		if err := askUntilEOF(address, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, "asking for State:", err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	if *full {
		others = lookAround()
	}
	os.Exit(bundle.Main(m))
}

// contender is one of those that take turns.
type contender struct {
	name string
	once func() error // one sample
	tidy func() error // after it, not measured; may be nil
}

// measured is what one contender showed.
type measured struct {
	name  string
	times []time.Duration // sorted
}

// takeTurns takes n samples of each contender, one after another, after one
// that does not count. The first contender is the one that ratios are of.
func takeTurns(n int, idle time.Duration, contenders []contender, others bystanders) ([]measured, error) {
	results := make([]measured, len(contenders))
	for turn := -1; turn < n; turn++ {
		for i, c := range contenders {
			took, err := c.sample(idle, others)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if turn >= 0 {
				results[i].times = append(results[i].times, took)
			}
		}
	}
	for i := range results {
		results[i].name = contenders[i].name
		slices.Sort(results[i].times)
	}
	return results, nil
}

// quantile of sorted samples, the nearest one.
func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// table renders results; ratio is the first one's median over the row's.
func table(title string, results []measured) string {
	var out strings.Builder
	first := quantile(results[0].times, 0.5)
	fmt.Fprintf(&out, "\n%s\n  %-12s %4s %10s %10s %22s\n", title, "", "N", "median ms", "p95 ms", results[0].name+" / this one")
	for _, r := range results {
		median := quantile(r.times, 0.5)
		fmt.Fprintf(&out, "  %-12s %4d %10.2f %10.2f %22.2f\n", r.name, len(r.times), milliseconds(median),
			milliseconds(quantile(r.times, 0.95)), float64(first)/float64(median))
	}
	return out.String()
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// show prints a table now: they are what `make bench` is for.
func show(t *testing.T, title string, samples int, idle time.Duration, contenders []contender) {
	t.Helper()
	if !*full {
		samples = 2
	}
	results, err := takeTurns(samples, idle, contenders, others)
	if err != nil {
		t.Fatal(err)
	}
	text := table(title, results)
	if *full {
		fmt.Print(text)
	}
}

func TestTakeTurns(t *testing.T) {
	var order []string
	contenders := []contender{
		{name: "a", once: func() error { order = append(order, "a"); return nil }},
		{name: "b", once: func() error { order = append(order, "b"); return nil }},
	}
	results, err := takeTurns(2, 0, contenders, nil)
	if err != nil || strings.Join(order, "") != "ababab" {
		t.Fatalf("%v %v", order, err)
	}
	if len(results[0].times) != 2 {
		t.Errorf("%+v", results)
	}
}

func TestQuantile(t *testing.T) {
	samples := []time.Duration{1, 2, 3, 4, 5}
	if quantile(samples, 0.5) != 3 || quantile(samples, 0.95) != 5 || quantile(samples[:1], 0.5) != 1 {
		t.Error("wrong")
	}
}
