package image

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/engined/registry"
	"github.com/engined/engined/failpoint"
)

// layerPush is a layer on its way out.
type layerPush struct {
	pusher  *pusher
	to      *registry.Repository
	diff    digest.Digest
	chain   digest.Digest
	id      string     // of its line of progress
	known   []seenBlob // of this content, anywhere
	sources []string   // repositories that may be mounted from
	twin    *layerPush // sends the same content

	sent ocispec.Descriptor // what the repository has now
}

// send makes sure that the repository has the layer, by the cheapest way.
func (l *layerPush) send(ctx context.Context) error {
	p := l.pusher
	p.say(l.id, "Waiting")
	leave, err := p.store.Remote.UploadTurn(ctx)
	if err != nil {
		return err
	}
	defer leave()
	for _, step := range []func(context.Context) (bool, error){l.exists, l.mount, l.upload} {
		if done, err := step(ctx); err != nil || done {
			return err
		}
	}
	return nil
}

// exists asks for the blobs that the layer had anywhere: content that came from
// one registry may have gone to another by other hands.
func (l *layerPush) exists(ctx context.Context) (bool, error) {
	asked := map[digest.Digest]bool{}
	for _, blob := range l.known {
		if asked[blob.Digest] || len(asked) >= maxMountSources {
			continue
		}
		asked[blob.Digest] = true
		has, err := l.to.Has(ctx, blob.Descriptor)
		if err != nil {
			return false, err
		}
		if has {
			l.sent = blob.Descriptor
			l.pusher.say(l.id, "Layer already exists")
			return true, nil
		}
	}
	return false, nil
}

func (l *layerPush) mount(ctx context.Context) (bool, error) {
	attempts := 0
	for _, blob := range l.known {
		path := l.pusher.mountable(blob)
		if path == "" || attempts >= maxMountSources {
			continue
		}
		attempts++
		mounted, err := l.to.Mount(ctx, blob.Digest, path)
		if err != nil {
			return false, err
		}
		if mounted {
			l.sent = blob.Descriptor
			l.pusher.say(l.id, "Mounted from "+path)
			return true, nil
		}
	}
	return false, nil
}

// upload puts the layer's tar together again, compresses it and sends it.
func (l *layerPush) upload(ctx context.Context) (bool, error) {
	file, err := l.pusher.store.Remote.Spool()
	if err != nil {
		return false, err
	}
	defer file.Close()
	if l.sent, err = l.compress(ctx, file); err != nil {
		return false, fmt.Errorf("compressing layer %s: %w", l.diff, err)
	}
	failpoint.At("layer-compressed")
	var shown time.Time
	err = l.to.Upload(ctx, l.sent, file, func(sent int64) {
		if now := time.Now(); now.Sub(shown) >= progressPause || sent == l.sent.Size {
			shown = now
			l.pusher.report(jsonstream.Message{ID: l.id, Status: "Pushing", Progress: &jsonstream.Progress{Current: sent, Total: l.sent.Size}})
		}
	})
	if err != nil {
		return false, fmt.Errorf("pushing layer %s: %w", l.diff, err)
	}
	failpoint.At("layer-pushed")
	l.pusher.say(l.id, "Pushed")
	return true, nil
}

// compress writes the layer to file as it came, as far as that is known:
// uncompressed, or with the standard library's gzip, which Docker's tools use,
// at the level of its header. Most layers get the very bytes, and so the digest,
// that they were pulled with. Others get a digest of their own, as they do in
// dockerd.
func (l *layerPush) compress(ctx context.Context, file *os.File) (ocispec.Descriptor, error) {
	sum := digest.SHA256.Digester()
	buffered := bufio.NewWriterSize(io.MultiWriter(file, sum.Hash()), 1<<16)
	made := ocispec.Descriptor{MediaType: registry.DockerLayer}
	packed := io.WriteCloser(unpacked{buffered})
	if !l.plain() {
		made.MediaType = registry.DockerLayerGzip
		var err error
		if packed, err = gzip.NewWriterLevel(buffered, l.level()); err != nil {
			return made, err
		}
	}
	if err := l.pusher.store.layers.WriteTar(ctx, l.chain, packed); err != nil {
		return made, err
	}
	if err := errors.Join(packed.Close(), buffered.Flush()); err != nil {
		return made, err
	}
	size, err := file.Seek(0, io.SeekCurrent)
	made.Digest, made.Size = sum.Digest(), size
	return made, err
}

// plain is true for a layer that came uncompressed.
func (l *layerPush) plain() bool {
	return slices.ContainsFunc(l.known, func(b seenBlob) bool { return b.Digest == l.diff })
}

// level is gzip's, as the layer was seen last.
func (l *layerPush) level() int {
	for _, blob := range l.known {
		if blob.level >= gzip.BestSpeed && blob.level <= gzip.BestCompression {
			return blob.level
		}
	}
	return gzip.DefaultCompression
}

// unpacked is no compression.
type unpacked struct{ io.Writer }

func (unpacked) Close() error { return nil }

// sendConfig sends an image's configuration if it is not there.
func sendConfig(ctx context.Context, to *registry.Repository, config ocispec.Descriptor, raw []byte) error {
	has, err := to.Has(ctx, config)
	if err != nil || has {
		return err
	}
	return to.Upload(ctx, config, bytes.NewReader(raw), func(int64) {})
}
