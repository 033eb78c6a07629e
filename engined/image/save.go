package image

import (
	"archive/tar"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/distribution/reference"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/engined/layer"
	"github.com/engined/engined/proto/errdefs"
)

// Saving is images chosen for one archive. It is made before the archive's
// first byte is sent, so that an unknown image is still a proper error.
type Saving struct {
	store   *Store
	images  []saved
	working string
}

// saved is one image and the names it goes by in the archive.
type saved struct {
	row    *row
	names  []name
	raw    []byte
	layers []layer.Layer
}

// Save looks up images by name or id; a name without a tag means all tags of
// its repository. With platforms, each must be for one of them. Close must be
// called.
func (s *Store) Save(ctx context.Context, refs []string, platforms ...ocispec.Platform) (_ *Saving, err error) {
	saving := &Saving{store: s, working: work()}
	var undo errdefs.Undo
	defer undo.OnError(&err)
	undo.Add("release layers", func(context.Context) error { saving.Close(ctx); return nil })
	seen := map[digest.Digest]int{}
	refs, err = s.allTags(ctx, refs)
	if err != nil {
		return nil, err
	}
	for _, ref := range refs {
		found, err := s.find(ctx, ref)
		if err != nil {
			return nil, err
		}
		if found.damage != nil {
			return nil, found.damage
		}
		if err := found.suits(ref, platforms); err != nil {
			return nil, err
		}
		at, listed := seen[found.id]
		if !listed {
			if err := saving.add(ctx, found.row); err != nil {
				return nil, err
			}
			at = len(saving.images) - 1
			seen[found.id] = at
		}
		if found.by != "" && !found.by.isDigest() {
			saving.images[at].names = append(saving.images[at].names, found.by)
		}
	}
	return saving, nil
}

// allTags replaces a repository's name by all its tagged names, if it has any.
func (s *Store) allTags(ctx context.Context, refs []string) ([]string, error) {
	found, err := s.all(ctx)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, ref := range refs {
		parsed, err := reference.ParseNormalizedNamed(ref)
		before := len(all)
		if err == nil && reference.IsNameOnly(parsed) {
			for _, r := range found.rows {
				for _, n := range r.names {
					if !n.isDigest() && n.repository() == parsed.Name() {
						all = append(all, string(n))
					}
				}
			}
		}
		if len(all) == before {
			all = append(all, ref)
		}
	}
	return all, nil
}

// add reads what the archive needs of an image, and holds its layers.
func (w *Saving) add(ctx context.Context, r *row) error {
	image := saved{row: r}
	err := w.store.db.Update(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, `SELECT config FROM images WHERE id = ?`, r.id.String()).Scan(&image.raw); err != nil {
			return fmt.Errorf("reading the configuration of %s: %w", r.id, err)
		}
		return w.store.layers.HoldIn(ctx, tx, r.chain, w.working)
	})
	if err != nil {
		return err
	}
	if image.layers, err = w.store.layers.Chain(ctx, r.chain); err != nil {
		return err
	}
	w.images = append(w.images, image)
	return nil
}

// Close ends the hold on the layers.
func (w *Saving) Close(ctx context.Context) { w.store.release(ctx, w.working) }

// epoch is the time of every file in an archive: the same images give the same
// archive.
var epoch = time.Unix(0, 0)

// Write writes the archive: an OCI image layout that also has the manifest.json
// that `docker load` of any version reads. Layers are plain tars.
func (w *Saving) Write(ctx context.Context, to io.Writer) error {
	out := &layoutWriter{tar: tar.NewWriter(to), written: map[string]bool{}}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	listed := []dockerImage{}
	for _, image := range w.images {
		descriptor, entry, err := w.writeImage(ctx, out, image)
		if err != nil {
			return fmt.Errorf("saving image %s: %w", image.row.id, err)
		}
		index.Manifests = append(index.Manifests, named(descriptor, image.names)...)
		listed = append(listed, entry)
	}
	for _, last := range []struct {
		file    string
		content any
	}{
		{ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}},
		{"index.json", index},
		{"manifest.json", listed},
	} {
		if err := out.json(last.file, last.content); err != nil {
			return err
		}
	}
	if err := out.tar.Close(); err != nil {
		return err
	}
	for _, image := range w.images {
		w.store.publish(apievents.ActionSave, image.row.id.String(), image.row.id.String(), image.row.labels())
	}
	return nil
}

// named gives an index one entry for each name, or one without.
func named(descriptor ocispec.Descriptor, names []name) []ocispec.Descriptor {
	if len(names) == 0 {
		return []ocispec.Descriptor{descriptor}
	}
	var entries []ocispec.Descriptor
	for _, n := range names {
		entry := descriptor
		tag := string(n)[strings.LastIndexByte(string(n), ':')+1:]
		entry.Annotations = map[string]string{annotationName: string(n), ocispec.AnnotationRefName: tag}
		entries = append(entries, entry)
	}
	return entries
}

func (w *Saving) writeImage(ctx context.Context, out *layoutWriter, image saved) (ocispec.Descriptor, dockerImage, error) {
	entry := dockerImage{Config: blobFile(image.row.id), RepoTags: []string{}, Layers: []string{}}
	for _, n := range image.names {
		entry.RepoTags = append(entry.RepoTags, n.familiar())
	}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: image.row.id, Size: int64(len(image.raw))}}
	if err := out.file(entry.Config, image.raw); err != nil {
		return ocispec.Descriptor{}, entry, err
	}
	for _, l := range image.layers {
		size, err := w.writeLayer(ctx, out, l)
		if err != nil {
			return ocispec.Descriptor{}, entry, err
		}
		entry.Layers = append(entry.Layers, blobFile(l.Diff))
		manifest.Layers = append(manifest.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: l.Diff, Size: size})
	}
	raw, err := json.Marshal(manifest)
	if err != nil {
		return ocispec.Descriptor{}, entry, err
	}
	id := digest.FromBytes(raw)
	platform := image.row.config.Platform
	return ocispec.Descriptor{MediaType: manifest.MediaType, Digest: id, Size: int64(len(raw)), Platform: &platform}, entry, out.file(blobFile(id), raw)
}

// writeLayer puts a layer's tar into a file first: its size comes before it.
func (w *Saving) writeLayer(ctx context.Context, out *layoutWriter, l layer.Layer) (size int64, err error) {
	spooled, err := os.CreateTemp(w.store.dir, "load-save-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, spooled.Close(), os.Remove(spooled.Name())) }()
	verifier := l.Diff.Verifier()
	if err := w.store.layers.WriteTar(ctx, l.Chain, io.MultiWriter(spooled, verifier)); err != nil {
		return 0, err
	}
	if !verifier.Verified() {
		return 0, errdefs.DataLoss.Errorf("layer %s has changed on disk: its tar has another digest", l.Diff)
	}
	if size, err = spooled.Seek(0, io.SeekCurrent); err != nil {
		return 0, err
	}
	if _, err := spooled.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	return size, out.stream(blobFile(l.Diff), size, spooled)
}

// layoutWriter writes files of a layout, each once.
type layoutWriter struct {
	tar     *tar.Writer
	written map[string]bool // files and directories
}

func (o *layoutWriter) json(file string, content any) error {
	raw, err := json.Marshal(content)
	if err != nil {
		return err
	}
	return o.file(file, raw)
}

func (o *layoutWriter) file(file string, content []byte) error {
	return o.stream(file, int64(len(content)), bytes.NewReader(content))
}

func (o *layoutWriter) stream(file string, size int64, content io.Reader) error {
	if o.written[file] {
		return nil
	}
	if err := o.directory(path.Dir(file)); err != nil {
		return err
	}
	o.written[file] = true
	header := &tar.Header{Typeflag: tar.TypeReg, Name: file, Size: size, Mode: 0o444, ModTime: epoch}
	if err := o.tar.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.Copy(o.tar, content)
	return err
}

func (o *layoutWriter) directory(dir string) error {
	if dir == "." || o.written[dir] {
		return nil
	}
	if err := o.directory(path.Dir(dir)); err != nil {
		return err
	}
	o.written[dir] = true
	return o.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: epoch})
}
