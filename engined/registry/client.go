package registry

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/engined/engined/proto/errdefs"
)

// Defaults, as dockerd's.
const (
	DefaultDownloads = 3
	DefaultUploads   = 5
	DefaultAttempts  = 5
)

// answerTimeout is how long a manifest, or what else is small, may take from the
// question to its last byte: a registry can stop in the middle.
const answerTimeout = 2 * time.Minute

// Options configure a Client.
type Options struct {
	Dir       string   // for blobs on their way; made if missing
	Insecure  []string // hosts and networks (CIDR) that may be without TLS or a known certificate; loopback always is
	Mirrors   []string // URLs, asked before Docker Hub; HOST=URL before that one
	CertDirs  []string // with HOST/*.crt, *.cert and *.key, the first is preferred
	Downloads int      // at the same time; 0: DefaultDownloads
	Uploads   int      // at the same time; 0: DefaultUploads
	Attempts  int      // before giving up; 0: DefaultAttempts
	Agent     string   // the User-Agent header
	Logger    *slog.Logger

	// Backoff is how long to wait after that many failures in a row; nil: one
	// second, doubled each time, thirty at most.
	Backoff func(failures int) time.Duration
}

// Client talks to registries.
type Client struct {
	options  Options
	insecure insecure
	mirrors  map[string][]host // by the registry's name in references
	log      *slog.Logger

	downloading *queue
	uploading   *queue

	answerTimeout time.Duration

	alive context.Context // ends with Close
	end   context.CancelFunc
	work  sync.WaitGroup // downloads

	mu         sync.Mutex
	downloads  map[string]*download       // by file name; guarded by mu
	transports map[host]http.RoundTripper // guarded by mu
}

// Open checks the options and removes what is too old to be gone on with.
func Open(options Options) (*Client, error) {
	setDefault(&options.Downloads, DefaultDownloads)
	setDefault(&options.Uploads, DefaultUploads)
	setDefault(&options.Attempts, DefaultAttempts)
	if options.Backoff == nil {
		options.Backoff = backoff
	}
	if options.Logger == nil {
		options.Logger = slog.Default()
	}
	c := &Client{options: options, log: options.Logger, answerTimeout: answerTimeout,
		downloading: &queue{free: options.Downloads}, uploading: &queue{free: options.Uploads},
		downloads: map[string]*download{}, transports: map[host]http.RoundTripper{}}
	var err error
	if c.insecure, err = parseInsecure(options.Insecure); err != nil {
		return nil, err
	}
	if c.mirrors, err = parseMirrors(options.Mirrors); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(options.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the directory for blobs: %w", err)
	}
	if err := sweep(options.Dir, time.Now()); err != nil {
		return nil, fmt.Errorf("sweeping %s: %w", options.Dir, err)
	}
	c.alive, c.end = context.WithCancel(context.Background())
	return c, nil
}

func setDefault(value *int, to int) {
	if *value <= 0 {
		*value = to
	}
}

// Check says what is wrong with the options that people write.
func Check(insecure, mirrors []string) error {
	if _, err := parseInsecure(insecure); err != nil {
		return err
	}
	_, err := parseMirrors(mirrors)
	return err
}

// Close ends downloads and connections.
func (c *Client) Close() error {
	c.end()
	c.work.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.transports {
		if idle, is := t.(interface{ CloseIdleConnections() }); is {
			idle.CloseIdleConnections()
		}
	}
	return nil
}

// keepPartial is how long a piece of a blob waits for the pull that goes on
// with it.
const keepPartial = 72 * time.Hour

// sweep removes old pieces, and all that a push left: it begins anew.
func sweep(dir string, now time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		stat, err := entry.Info()
		if err != nil {
			return err
		}
		old := strings.HasPrefix(entry.Name(), "blob-") && now.Sub(stat.ModTime()) > keepPartial
		if !old && !strings.HasPrefix(entry.Name(), "push-") {
			continue
		}
		if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

func backoff(failures int) time.Duration {
	return min(time.Second<<min(failures-1, 5), 30*time.Second)
}

// wait waits before the next attempt, longer if the registry asked for it.
func (c *Client) wait(ctx context.Context, failures int, cause error) error {
	timer := time.NewTimer(max(c.options.Backoff(failures), retryAfter(cause)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// retry repeats what failed for a reason that may pass.
func (c *Client) retry(ctx context.Context, do func() error) error {
	for failures := 1; ; failures++ {
		err := do()
		if err == nil || failures >= c.options.Attempts || !mayPass(err) || ctx.Err() != nil {
			return err
		}
		c.log.DebugContext(ctx, "trying a registry again", "failures", failures, "err", err)
		if err := c.wait(ctx, failures, err); err != nil {
			return err
		}
	}
}

var errTooLarge = errdefs.InvalidArgument.Errorf("the registry's answer is too large")
