package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/engined/layer"
	"github.com/engined/engined/engined/registry"
	"github.com/engined/engined/failpoint"
)

// progressPause is the time between two reports of one layer's progress.
const progressPause = 100 * time.Millisecond

// layerPull is a layer on its way. Its line of progress is written by watch
// until the blob is here, then by register.
type layerPull struct {
	puller  *puller
	diff    digest.Digest
	of      ocispec.Descriptor
	id      string // of its line
	blob    *registry.Blob
	watched chan struct{} // closed when watch has written its last

	registered chan struct{} // closed when the layer is there; then the next three may be read
	useless    bool          // the blob is whole and no good
	start      []byte        // the blob's first bytes, if they were read
	verified   bool          // the blob has its digest, and the diff is what is in it
}

func (p *puller) fetch(ctx context.Context, diff digest.Digest, of ocispec.Descriptor) (*layerPull, error) {
	blob, err := p.from.Fetch(ctx, of)
	if err != nil {
		return nil, err
	}
	l := &layerPull{puller: p, diff: diff, of: of, id: shortID(of.Digest.Encoded()), blob: blob, watched: make(chan struct{}), registered: make(chan struct{})}
	p.say(l.id, "Pulling fs layer")
	return l, nil
}

// watch reports the download until it ends. A failed one ends the whole pull.
func (l *layerPull) watch(ctx context.Context, fail context.CancelCauseFunc) {
	defer close(l.watched)
	line := downloadLine{say: func(status string, p *jsonstream.Progress) {
		l.puller.report(jsonstream.Message{ID: l.id, Status: status, Progress: p})
	}, last: -1}
	for {
		progress, changed := l.blob.Progress()
		line.show(progress, time.Now())
		switch progress.Phase {
		case registry.Complete:
			return
		case registry.Failed:
			fail(l.blob.Wait(ctx))
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// downloadLine words a download's progress as dockerd does.
type downloadLine struct {
	say   func(status string, p *jsonstream.Progress)
	last  registry.Phase
	shown time.Time // when the last bar was
}

func (d *downloadLine) show(p registry.Progress, now time.Time) {
	entered := p.Phase != d.last
	d.last = p.Phase
	switch p.Phase {
	case registry.Downloading:
		if p.Current > 0 && (now.Sub(d.shown) >= progressPause || p.Current == p.Total) {
			d.shown = now
			d.say("Downloading", &jsonstream.Progress{Current: p.Current, Total: p.Total})
		}
		return
	case registry.Complete:
		if entered {
			d.say("Verifying Checksum", nil)
			d.say("Download complete", nil)
		}
		return
	}
	if words := map[registry.Phase]string{registry.Waiting: "Waiting", registry.Retrying: "Retrying"}[p.Phase]; entered && words != "" {
		d.say(words, nil)
	}
}

// register unpacks the blob while it arrives. The layer counts when the blob's
// digest is verified, too. A failure ends the whole pull.
func (l *layerPull) register(ctx context.Context, req layer.RegisterRequest, fail context.CancelCauseFunc) {
	stream := l.blob.Read(ctx)
	defer stream.Close()
	extraction := &extraction{from: stream, pull: l}
	_, err := l.puller.store.layers.Register(ctx, req, extraction)
	if err != nil {
		progress, _ := l.blob.Progress()
		l.useless = ctx.Err() == nil && progress.Phase == registry.Complete
		fail(fmt.Errorf("failed to register layer: %w", err))
		return
	}
	if extraction.at > 0 {
		if err := l.blob.Wait(ctx); err != nil {
			fail(err)
			return
		}
		l.verified = true
		<-l.watched
	}
	failpoint.At("layer-pulled")
	l.puller.say(l.id, "Pull complete")
	close(l.registered)
}

// end gives the blob up. Until the image is there, it stays to be gone on with:
// the layers of a pull that was killed are gone, and it is not fetched again.
func (l *layerPull) end(done bool) {
	l.blob.Close(done || l.useless)
	failpoint.At("blob-closed")
}

// isFull says whether there was no room: then nothing is kept that takes it.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// blobStart is how much of a blob's beginning is looked at: gzip's header.
const blobStart = 10

// extraction reports how much of a blob was unpacked, once all of it is here.
type extraction struct {
	from  io.Reader
	pull  *layerPull
	at    int64
	shown time.Time
}

func (e *extraction) Read(p []byte) (int, error) {
	n, err := e.from.Read(p)
	e.at += int64(n)
	if missing := blobStart - len(e.pull.start); missing > 0 {
		e.pull.start = append(e.pull.start, p[:min(n, missing)]...)
	}
	select {
	case <-e.pull.watched:
	default:
		return n, err
	}
	if now := time.Now(); n > 0 && (now.Sub(e.shown) >= progressPause || e.at == e.pull.of.Size) {
		e.shown = now
		e.pull.puller.report(jsonstream.Message{ID: e.pull.id, Status: "Extracting", Progress: &jsonstream.Progress{Current: e.at, Total: e.pull.of.Size}})
	}
	return n, err
}
