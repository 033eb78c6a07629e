package image

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/moby/moby/api/types/jsonstream"

	"github.com/engined/engined/proto/errdefs"
)

// fetcher gets what is imported from a URL: through the proxies that the
// environment names, and without waiting for ever for a server to answer.
var fetcher = &http.Client{Transport: &http.Transport{
	Proxy:                 http.ProxyFromEnvironment,
	TLSHandshakeTimeout:   10 * time.Second,
	ResponseHeaderTimeout: time.Minute,
	DisableKeepAlives:     true, // one request, no connection left over
}}

// maxErrorBody is how much of a server's refusal is repeated.
const maxErrorBody = 512

// Fetch opens what a URL names, for Import. Its progress is reported while it is
// read. The caller closes it.
func (s *Store) Fetch(ctx context.Context, source string, report Report) (io.ReadCloser, error) {
	if !strings.Contains(source, "://") {
		source = "http://" + source
	}
	at, err := url.Parse(source)
	if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		return nil, errdefs.InvalidArgument.Errorf("parameter fromSrc: expected - or an http or https URL, got %q", source)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, errdefs.InvalidArgument.Errorf("parameter fromSrc: %w", err)
	}
	report(jsonstream.Message{Status: "Downloading from " + at.Redacted()})
	answer, err := fetcher.Do(request)
	if err != nil {
		return nil, errdefs.Unavailable.Errorf("fetching %s: %w", at.Redacted(), err)
	}
	if answer.StatusCode >= http.StatusBadRequest {
		defer answer.Body.Close()
		said, _ := io.ReadAll(io.LimitReader(answer.Body, maxErrorBody)) // what there is of it
		return nil, refusal(at, answer, strings.TrimSpace(string(said)))
	}
	return &fetched{ReadCloser: answer.Body, total: answer.ContentLength, report: report}, nil
}

func refusal(at *url.URL, answer *http.Response, said string) error {
	kind := errdefs.Unavailable
	switch answer.StatusCode {
	case http.StatusUnauthorized:
		kind = errdefs.Unauthenticated
	case http.StatusForbidden:
		kind = errdefs.PermissionDenied
	case http.StatusNotFound, http.StatusGone:
		kind = errdefs.NotFound
	}
	return kind.Errorf("%w", fmt.Errorf("failed to GET %s with status %s: %s", at.Redacted(), answer.Status, said))
}

// fetched is a download that reports how far it is.
type fetched struct {
	io.ReadCloser
	at, total int64
	shown     time.Time
	report    Report
}

func (f *fetched) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	f.at += int64(n)
	if now := time.Now(); now.Sub(f.shown) >= progressPause || f.at == f.total {
		f.shown = now
		f.report(jsonstream.Message{Status: "Importing", Progress: &jsonstream.Progress{Current: f.at, Total: max(f.total, 0)}})
	}
	return n, err
}
