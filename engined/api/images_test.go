package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	apicontainer "github.com/moby/moby/api/types/container"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/engined/container"
	"github.com/engined/engined/engined/image"
	"github.com/engined/engined/proto/errdefs"
)

// fakeImages answers what a test sets and is nil, which panics, elsewhere.
type fakeImages struct {
	images
	imported func(image.ImportRequest, string) (digest.Digest, error)
	load     func(image.LoadOptions, image.Report) error
	list     func(image.ListOptions) ([]apiimage.Summary, error)
	inspect  func() (image.Inspected, error)
	pull     func(image.PullRequest, image.Report) error
	push     func(image.PushRequest, image.Report) error
	remove   func(ref string, opts image.RemoveOptions) ([]apiimage.DeleteResponse, error)
}

func (f *fakeImages) Import(_ context.Context, req image.ImportRequest, body io.Reader) (digest.Digest, error) {
	raw, err := io.ReadAll(body)
	if err != nil {
		return "", err
	}
	return f.imported(req, string(raw))
}

func (f *fakeImages) Load(_ context.Context, _ io.Reader, opts image.LoadOptions, report image.Report) error {
	return f.load(opts, report)
}

func (f *fakeImages) Pull(_ context.Context, req image.PullRequest, report image.Report) error {
	return f.pull(req, report)
}

func (f *fakeImages) Push(_ context.Context, req image.PushRequest, report image.Report) error {
	return f.push(req, report)
}

func (f *fakeImages) List(_ context.Context, opts image.ListOptions) ([]apiimage.Summary, error) {
	return f.list(opts)
}

func (f *fakeImages) Inspect(context.Context, string, ...ocispec.Platform) (image.Inspected, error) {
	return f.inspect()
}

func (f *fakeImages) Remove(_ context.Context, ref string, opts image.RemoveOptions) ([]apiimage.DeleteResponse, error) {
	return f.remove(ref, opts)
}

func TestImportPassesEverythingOn(t *testing.T) {
	s := newServer(nil)
	id := digest.FromString("x")
	s.Images = &fakeImages{imported: func(req image.ImportRequest, body string) (digest.Digest, error) {
		if req.Repository != "a/b" || req.Tag != "1" || req.Message != "m" || len(req.Changes) != 2 || req.Changes[1] != "ENV A=b" ||
			req.Platform == nil || req.Platform.Architecture != "arm64" || body != "the tar" {
			t.Errorf("got %+v, body %q", req, body)
		}
		return id, nil
	}}
	w := call(t, s, "POST /images/create?fromSrc=-&repo=a/b&tag=1&message=m&changes=CMD+x&changes=ENV+A%3Db&platform=linux/arm64", "the tar")
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" || w.Body.String() != `{"status":"`+id.String()+`"}`+"\n" {
		t.Errorf("%d %s %s", w.Code, w.Header(), w.Body)
	}
}

func TestWhatImagesCannotDoSaysSo(t *testing.T) {
	s := newServer(nil)
	if w := call(t, s, `POST /images/load?platform={"architecture":"arm"}&platform={"os":"linux"}`); w.Code != 501 || !strings.Contains(w.Body.String(), "several platforms") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, line := range []string{"POST /images/create", "GET /images/get", "GET /images/x/get?platform=x", "POST /images/load?platform=x",
		"POST /images/x/push?platform=x", "GET /images/x/history?platform=x", "GET /images/x/json?platform=x", "POST /commit", "GET /system/df?type=x"} {
		if w := call(t, s, line); w.Code != 400 {
			t.Errorf("%s: %d %s", line, w.Code, w.Body)
		}
	}
}

func TestALoadThatFailsLateTellsInTheStream(t *testing.T) {
	s := newServer(nil)
	broken := errdefs.InvalidArgument.Errorf("the second image is broken")
	s.Images = &fakeImages{load: func(opts image.LoadOptions, report image.Report) error {
		if opts.Quiet {
			t.Error("quiet=0 was not heard")
		}
		report(jsonstream.Message{Stream: "Loaded image: a<b>:latest\n"})
		return broken
	}}
	w := call(t, s, "POST /images/load?quiet=0", "x")
	want := `{"stream":"Loaded image: a<b>:latest\n"}` + "\n" +
		`{"errorDetail":{"code":400,"message":"the second image is broken"},"error":"the second image is broken"}` + "\n"
	if w.Code != 200 || w.Body.String() != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	s.Images = &fakeImages{load: func(opts image.LoadOptions, _ image.Report) error {
		if !opts.Quiet {
			t.Error("quiet is the default")
		}
		return broken
	}}
	if w := call(t, s, "POST /images/load", "x"); w.Code != 400 || !strings.Contains(w.Body.String(), "the second image is broken") {
		t.Errorf("before the stream began: %d %s", w.Code, w.Body)
	}
}

func TestOldVersionsSeeNamelessImagesAndVirtualSize(t *testing.T) {
	s := newServer(nil)
	var counted bool
	s.Images = &fakeImages{list: func(opts image.ListOptions) ([]apiimage.Summary, error) {
		if len(opts.Filters["reference"]) == 1 && opts.Filters["reference"][0] != "busybox" {
			t.Errorf("filters %v", opts.Filters)
		}
		counted = opts.Containers
		return []apiimage.Summary{{ID: "x", Size: 5, RepoTags: []string{}, RepoDigests: []string{}}}, nil
	}}
	for line, want := range map[string][]string{
		"GET /v1.24/images/json?filter=busybox": {`"VirtualSize":5`, `"RepoTags":["<none>:<none>"]`, `"RepoDigests":["<none>@<none>"]`},
		"GET /v1.43/images/json":                {`"VirtualSize":5`, `"RepoTags":[]`},
		"GET /images/json":                      {`"RepoTags":[]`, `"Size":5`},
	} {
		w := call(t, s, line)
		for _, part := range want {
			if !strings.Contains(w.Body.String(), part) {
				t.Errorf("%s: %s lacks %s", line, w.Body, part)
			}
		}
		var decoded []map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &decoded); err != nil {
			t.Error(err)
		}
		if counted == strings.Contains(line, "v1.") {
			t.Errorf("%s: containers are counted: %v", line, counted)
		}
		if _, has := decoded[0]["VirtualSize"]; has != strings.Contains(line, "v1.") {
			t.Errorf("%s: VirtualSize %v", line, has)
		}
	}
}

func TestOldVersionsSeeWhatAnImageWasBuiltOn(t *testing.T) {
	s := newServer(nil)
	s.Images = &fakeImages{inspect: func() (image.Inspected, error) {
		return image.Inspected{InspectResponse: apiimage.InspectResponse{ID: "x", Size: 5}, Parent: "p", DockerVersion: "v"}, nil
	}}
	for version, want := range map[string]string{"/v1.43": "p v 5", "/v1.51": "p v <nil>", "": "<nil> <nil> <nil>"} {
		var told map[string]any
		if err := json.Unmarshal(call(t, s, "GET "+version+"/images/x/json").Body.Bytes(), &told); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(told["Parent"], " ", told["DockerVersion"], " ", told["VirtualSize"]); got != want || told["Id"] != "x" {
			t.Errorf("%q: %s, want %s", version, got, want)
		}
	}
}

func TestRemovingIsToldWhoRuns(t *testing.T) {
	c := &fakeContainers{list: func(opts container.ListOptions) ([]apicontainer.Summary, error) {
		if opts.All {
			t.Error("asked for all, needs those that run")
		}
		return []apicontainer.Summary{{ID: "c1"}}, nil
	}}
	s := newServer(c)
	s.Images = &fakeImages{remove: func(ref string, opts image.RemoveOptions) ([]apiimage.DeleteResponse, error) {
		if ref != "example.com/a:1" || !opts.Force || !opts.NoPrune || !opts.Running["c1"] {
			t.Errorf("%s %+v", ref, opts)
		}
		return []apiimage.DeleteResponse{{Untagged: ref}}, nil
	}}
	if w := call(t, s, "DELETE /images/example.com/a:1?force=1&noprune=1"); w.Code != 200 || strings.TrimSpace(w.Body.String()) != `[{"Untagged":"example.com/a:1"}]` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	c.list = func(container.ListOptions) ([]apicontainer.Summary, error) { return nil, errors.New("no list") }
	if w := call(t, s, "DELETE /images/example.com/a:1"); w.Code != 500 {
		t.Errorf("without knowing who runs: %d %s", w.Code, w.Body)
	}
}
