// Package images makes images for tests: trees of files that compress about as
// well as programs and documents do, the same ones for the same seed.
package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"testing"

	gname "github.com/google/go-containerregistry/pkg/name"
	greg "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
)

// layer is a compressed tar in memory that knows its diff id.
type layer struct {
	greg.Layer
	diff greg.Hash
}

func (l layer) DiffID() (greg.Hash, error) { return l.diff, nil }

func (l layer) Uncompressed() (io.ReadCloser, error) {
	packed, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	return gzip.NewReader(packed)
}

// Layer makes a layer with about size bytes of files.
func Layer(t testing.TB, seed uint64, size int64) greg.Layer {
	t.Helper()
	var packed bytes.Buffer
	zipped := gzip.NewWriter(&packed)
	diff, err := hashOf(io.TeeReader(tarOf(seed, size), zipped))
	if err == nil {
		err = zipped.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return layer{static.NewLayer(packed.Bytes(), types.DockerLayer), diff}
}

func hashOf(r io.Reader) (greg.Hash, error) {
	hash, _, err := greg.SHA256(r)
	return hash, err
}

// tarOf streams the tar: files of 200 bytes to 2 MB, in directories of some
// dozens, their sizes spread as those of a distribution are.
func tarOf(seed uint64, size int64) io.Reader {
	read, write := io.Pipe()
	go func() { // ends with the reader's EOF: the pipe is read to its end
		random := rand.New(rand.NewPCG(seed, 1))
		words := vocabulary(random)
		out := tar.NewWriter(write)
		var err error
		for n := 0; size > 0 && err == nil; n++ {
			length := min(size, int64(200*math.Exp(random.Float64()*random.Float64()*math.Log(10000))))
			size -= length
			err = writeFile(out, fmt.Sprintf("usr/share/s%d/d%d/f%d", seed, n/40, n), length, random, words)
		}
		if err == nil {
			err = out.Close()
		}
		_ = write.CloseWithError(err)
	}()
	return read
}

func writeFile(out *tar.Writer, name string, size int64, random *rand.Rand, words [][]byte) error {
	if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size}); err != nil {
		return err
	}
	content := make([]byte, 0, size+64)
	for int64(len(content)) < size {
		content = append(content, words[int(random.Uint32())&random.IntN(len(words))]...)
	}
	_, err := out.Write(content[:size])
	return err
}

// vocabulary is 4096 strings of 2 to 17 bytes; text of them halves when packed.
func vocabulary(random *rand.Rand) [][]byte {
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = make([]byte, 2+random.IntN(16))
		for j := range words[i] {
			words[i][j] = byte(random.Uint32())
		}
	}
	return words
}

// Image puts layers together; label makes it differ from others of the same.
func Image(t testing.TB, label string, layers ...greg.Layer) greg.Image {
	t.Helper()
	image, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	config.Config = greg.Config{Labels: map[string]string{"label": label}, Cmd: []string{"sh"}}
	image, err = mutate.ConfigFile(image, config)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// Put pushes an image to a registry.
func Put(t testing.TB, name string, image greg.Image) {
	t.Helper()
	ref, err := gname.ParseReference(name)
	if err == nil {
		err = remote.Write(ref, image)
	}
	if err != nil {
		t.Fatal(err)
	}
}
