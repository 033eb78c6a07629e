package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/proto/errdefs"
)

// UploadTurn waits until one more upload may run. The caller gives the turn
// back.
func (c *Client) UploadTurn(ctx context.Context) (leave func(), err error) {
	place := c.uploading.join()
	if err := place.wait(ctx); err != nil {
		place.leave()
		return nil, err
	}
	return place.leave, nil
}

// Spool makes a file for a layer that is being compressed. The caller closes
// it; it has no name by which it could stay.
func (c *Client) Spool() (*os.File, error) {
	file, err := os.CreateTemp(c.options.Dir, "push-")
	if err != nil {
		return nil, fmt.Errorf("making a file for a layer to push: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// registry is the only remote of a repository to push to.
func (r *Repository) registry() *remote { return r.remotes[0] }

// Has asks whether the repository has a blob of that size.
func (r *Repository) Has(ctx context.Context, of ocispec.Descriptor) (has bool, err error) {
	err = r.client.retry(ctx, func() error {
		response, err := r.registry().do(ctx, request{method: http.MethodHead, path: r.url("blobs", of.Digest.String())}, http.StatusOK)
		if isStatus(err, http.StatusNotFound) {
			has = false
			return nil
		}
		if err != nil {
			return err
		}
		has = response.ContentLength < 0 || response.ContentLength == of.Size
		return response.Body.Close()
	})
	return has, r.refused(err)
}

// Mount asks for a blob that another repository of the registry has. A registry
// that cannot do that, or does not want to, says no by beginning an upload.
func (r *Repository) Mount(ctx context.Context, of digest.Digest, from string) (mounted bool, err error) {
	query := url.Values{"mount": {of.String()}, "from": {from}}
	response, err := r.registry().do(ctx, request{method: http.MethodPost, path: r.url("blobs", "uploads") + "/?" + query.Encode()}, http.StatusCreated, http.StatusAccepted)
	if err != nil {
		return false, r.refused(err)
	}
	if response.StatusCode == http.StatusCreated {
		return true, response.Body.Close()
	}
	r.abandon(ctx, response)
	return false, response.Body.Close()
}

// abandon ends an upload that is not wanted. If that fails, the registry's own
// clean-up does it.
func (r *Repository) abandon(ctx context.Context, begun *http.Response) {
	at, err := begun.Location()
	if err != nil {
		return
	}
	response, err := r.registry().do(ctx, request{method: http.MethodDelete, path: at.String()}, http.StatusNoContent, http.StatusOK)
	if err == nil {
		_ = response.Body.Close()
	}
}

// Upload sends a blob in one piece; progress hears how much is gone.
func (r *Repository) Upload(ctx context.Context, of ocispec.Descriptor, content io.ReaderAt, progress func(sent int64)) error {
	err := r.client.retry(ctx, func() error {
		begun, err := r.registry().do(ctx, request{method: http.MethodPost, path: r.url("blobs", "uploads") + "/"}, http.StatusAccepted)
		if err != nil {
			return err
		}
		if err := begun.Body.Close(); err != nil {
			return err
		}
		at, err := begun.Location()
		if err != nil {
			return errdefs.InvalidArgument.Errorf("the registry began an upload without saying where: %w", err)
		}
		query := at.Query()
		query.Set("digest", of.Digest.String())
		at.RawQuery = query.Encode()
		sent := &counted{from: io.NewSectionReader(content, 0, of.Size), tell: progress}
		done, err := r.registry().do(ctx, request{method: http.MethodPut, path: at.String(), body: sent, size: of.Size,
			header: http.Header{"Content-Type": {"application/octet-stream"}}}, http.StatusCreated)
		if err != nil {
			return err
		}
		return done.Body.Close()
	})
	return r.refused(err)
}

// counted tells how much was read.
type counted struct {
	from io.Reader
	at   int64
	tell func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	if n > 0 {
		c.at += int64(n)
		c.tell(c.at)
	}
	return n, err
}

// Put sends a manifest under a tag.
func (r *Repository) Put(ctx context.Context, tag string, m Manifest) error {
	err := r.client.retry(ctx, func() error {
		response, err := r.registry().do(ctx, request{method: http.MethodPut, path: r.url("manifests", tag), body: bytes.NewReader(m.Raw), size: int64(len(m.Raw)),
			header: http.Header{"Content-Type": {m.Descriptor.MediaType}}}, http.StatusCreated, http.StatusOK)
		if err != nil {
			return err
		}
		return response.Body.Close()
	})
	return r.refused(err)
}

// Host tells which registry it is, for comparing repositories.
func (r *Repository) Host() string { return reference.Domain(r.named) }

// refused words what a registry says to a push, as dockerd does.
func (r *Repository) refused(err error) error {
	var refused *transport.Error
	if !errors.As(err, &refused) {
		return err
	}
	if _, text := diagnosis(err, refused); text != "" {
		return &worded{text, err}
	}
	return err
}
