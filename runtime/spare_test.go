package runtime

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSpareShimGoesWhenNobodyNeedsIt: after a while, or with whoever keeps it.
func TestSpareShimGoesWhenNobodyNeedsIt(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	script := filepath.Join(dir, "shim")
	text := fmt.Sprintf("#!/bin/sh\necho began >>%[1]s\ncat <&3 >/dev/null\necho ended >>%[1]s\n", log)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	h := &Host{StateDir: dir, Shim: script, Limits: Limits{Shim: time.Minute}, Logger: slog.New(slog.DiscardHandler)}
	for _, life := range []time.Duration{time.Millisecond, time.Hour} {
		ctx, cancel := context.WithCancel(t.Context())
		r := NewReserve()
		r.life = life
		kept := make(chan struct{})
		go func() { r.Keep(ctx, h); close(kept) }()
		os.Remove(log)
		r.Refill()
		awaitText(t, log, "began\n")
		if life == time.Hour { // it waits on, and ends with Keep
			cancel()
		}
		awaitText(t, log, "began\nended\n")
		cancel()
		<-kept
		if r.Kept() {
			t.Errorf("a shim that has ended after %v is still counted", life)
		}
	}
}

// awaitText waits until a file begins with text.
func awaitText(t *testing.T, path, text string) {
	t.Helper()
	late := time.Now().Add(time.Minute)
	for {
		data, _ := os.ReadFile(path)
		if strings.HasPrefix(string(data), text) {
			return
		}
		if time.Now().After(late) {
			t.Fatalf("%s has %q, expected %q", path, data, text)
		}
		time.Sleep(time.Millisecond) // another process writes it
	}
}
