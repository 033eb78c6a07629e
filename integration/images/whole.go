package images

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	greg "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/moby/client"
)

// Whole saves an image and compares the digests of its configuration and of
// every layer, put together from its files, with what they shall be.
func Whole(ctx context.Context, c *client.Client, name string) error {
	inspected, err := c.ImageInspect(ctx, name)
	if err != nil {
		return fmt.Errorf("inspecting %s: %w", name, err)
	}
	stream, err := c.ImageSave(ctx, []string{name})
	if err != nil {
		return fmt.Errorf("saving %s: %w", name, err)
	}
	defer stream.Close()
	digests, small, err := digestsOf(stream)
	if err != nil {
		return fmt.Errorf("reading %s as it was saved: %w", name, err)
	}
	raw, there := small[digests[inspected.ID]]
	if !there {
		return fmt.Errorf("%s: no file has the digest of its configuration, %s", name, inspected.ID)
	}
	var config greg.ConfigFile
	if err := json.Unmarshal(raw, &config); err != nil {
		return err
	}
	if len(config.RootFS.DiffIDs) == 0 {
		return fmt.Errorf("%s has no layers", name)
	}
	for i, diff := range config.RootFS.DiffIDs {
		if digests[diff.String()] == "" {
			return fmt.Errorf("%s: no file has the digest of layer %d, %s", name, i, diff)
		}
	}
	return nil
}

// digestsOf reads an archive: its files by their digests, and what the small
// ones hold.
func digestsOf(stream io.Reader) (names map[string]string, small map[string][]byte, err error) {
	names, small = map[string]string{}, map[string][]byte{}
	for archive := tar.NewReader(stream); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return names, small, nil
		}
		if err != nil {
			return nil, nil, err
		}
		var start bytes.Buffer
		hash, _, err := greg.SHA256(io.TeeReader(archive, &firstOf{&start}))
		if err != nil {
			return nil, nil, err
		}
		name := path.Clean(strings.TrimLeft(header.Name, "/"))
		names[hash.String()], small[name] = name, start.Bytes()
	}
}

// firstOf keeps the first 64 KiB.
type firstOf struct{ *bytes.Buffer }

func (f *firstOf) Write(p []byte) (int, error) {
	if f.Len() < 64<<10 {
		f.Buffer.Write(p)
	}
	return len(p), nil
}
