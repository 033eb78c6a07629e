package registry

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
)

// fileOf is the name of the file that a blob is downloaded to.
func fileOf(blob digest.Digest) string {
	return "blob-" + blob.Algorithm().String() + "-" + blob.Encoded()
}

// Kept are the blobs of which a call that ended early has left all or a piece.
func (c *Client) Kept() (blobs []digest.Digest, err error) {
	entries, err := os.ReadDir(c.options.Dir)
	for _, entry := range entries {
		name, is := strings.CutPrefix(entry.Name(), "blob-")
		algorithm, encoded, _ := strings.Cut(name, "-")
		if blob := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), encoded); is && blob.Validate() == nil {
			blobs = append(blobs, blob)
		}
	}
	return blobs, err
}

// Forget removes what is left of a blob that nobody is downloading.
func (c *Client) Forget(blob digest.Digest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.downloads[fileOf(blob)] != nil {
		return nil
	}
	return os.Remove(filepath.Join(c.options.Dir, fileOf(blob)))
}
