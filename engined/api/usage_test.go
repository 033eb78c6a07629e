package api

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	apicontainer "github.com/moby/moby/api/types/container"
	apiimage "github.com/moby/moby/api/types/image"
	apivolume "github.com/moby/moby/api/types/volume"
	"github.com/opencontainers/go-digest"

	"github.com/engined/engined/engined/container"
	"github.com/engined/engined/engined/image"
	"github.com/engined/engined/proto/errdefs"
)

func (f *fakeImages) LayersSize(context.Context) (int64, error) { return 100, nil }

func (f *fakeContainers) VolumeUsage(context.Context) ([]apivolume.Volume, error) {
	return []apivolume.Volume{{Name: "used", UsageData: &apivolume.UsageData{Size: 3, RefCount: 1}}, {Name: "spare", UsageData: &apivolume.UsageData{Size: 4}}}, nil
}

func (f *fakeContainers) Commit(_ context.Context, ref string, request container.CommitRequest) (digest.Digest, error) {
	return f.commit(ref, request)
}

func (f *fakeContainers) Export(_ context.Context, ref string, to io.Writer) error {
	if ref == "none" {
		return errdefs.NotFound.Coded(errdefs.NoSuchContainer, ref, "no such container")
	}
	_, err := io.WriteString(to, "a tar")
	if ref == "damaged" {
		err = errdefs.DataLoss.Errorf("the rest cannot be read")
	}
	return err
}

func decode(t *testing.T, raw []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
}

func TestDiskUsage(t *testing.T) {
	s := newServer(&fakeContainers{list: func(options container.ListOptions) ([]apicontainer.Summary, error) {
		if !options.All || !options.Size {
			t.Errorf("asked for %+v", options)
		}
		return []apicontainer.Summary{{SizeRw: 5, State: apicontainer.StatePaused}, {SizeRw: 6, State: apicontainer.StateExited}}, nil
	}})
	s.Images = &fakeImages{list: func(opts image.ListOptions) ([]apiimage.Summary, error) {
		if !opts.SharedSize || !opts.Containers {
			t.Errorf("asked for %+v", opts)
		}
		return []apiimage.Summary{{ID: "a", Size: 80, SharedSize: 20, Containers: 2}, {ID: "b", Size: 40, SharedSize: 20}}, nil
	}}
	for line, want := range map[string]string{
		"GET /v1.52/system/df": `{"ImageUsage":{"ActiveCount":1,"Reclaimable":40,"TotalCount":2,"TotalSize":100},` +
			`"ContainerUsage":{"ActiveCount":1,"Reclaimable":6,"TotalCount":2,"TotalSize":11},` +
			`"VolumeUsage":{"ActiveCount":1,"Reclaimable":4,"TotalCount":2,"TotalSize":7},"BuildCacheUsage":{}}`,
		"GET /v1.52/system/df?type=build-cache":          `{"BuildCacheUsage":{}}`,
		"GET /v1.44/system/df?type=build-cache":          `{"LayersSize":0,"Images":null,"Containers":null,"Volumes":null,"BuildCache":[]}`,
		"GET /v1.52/system/df?type=volume&verbose=false": `{"VolumeUsage":{"ActiveCount":1,"Reclaimable":4,"TotalCount":2,"TotalSize":7}}`,
	} {
		if w := call(t, s, line); w.Code != 200 || w.Body.String() != want+"\n" {
			t.Errorf("%s: %d\n%swant\n%s", line, w.Code, w.Body, want)
		}
	}
	var old struct {
		LayersSize  int64
		Images      []struct{ VirtualSize int64 }
		Containers  []struct{ SizeRw int64 }
		Volumes     []struct{ UsageData struct{ RefCount int64 } }
		BuilderSize *int64
	}
	decode(t, call(t, s, "GET /v1.41/system/df?type=image").Body.Bytes(), &old)
	if old.LayersSize != 100 || len(old.Images) != 2 || old.Images[0].VirtualSize != 80 || len(old.Containers) != 2 || old.Volumes[0].UsageData.RefCount != 1 || old.BuilderSize == nil {
		t.Errorf("before 1.42: %+v", old)
	}
	var verbose struct {
		ImageUsage, ContainerUsage, VolumeUsage struct{ Items []any }
	}
	decode(t, call(t, s, "GET /v1.52/system/df?verbose=1").Body.Bytes(), &verbose)
	if len(verbose.ImageUsage.Items) != 2 || len(verbose.ContainerUsage.Items) != 2 || len(verbose.VolumeUsage.Items) != 2 {
		t.Errorf("verbose: %+v", verbose)
	}
}

func TestCommitPassesEverythingOn(t *testing.T) {
	id := digest.FromString("x")
	asked := map[string]container.CommitRequest{}
	s := newServer(&fakeContainers{commit: func(ref string, request container.CommitRequest) (digest.Digest, error) {
		asked[ref] = request
		return id, nil
	}})
	w := call(t, s, "POST /commit?container=one&repo=a/b&tag=1&author=me&comment=why&pause=0&changes=CMD+x&changes=USER+y", `{"User":"z"}`)
	if w.Code != 201 || w.Body.String() != `{"Id":"`+id.String()+`"}`+"\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if r := asked["one"]; r.Repository != "a/b" || r.Tag != "1" || r.Author != "me" || r.Comment != "why" || r.Pause || len(r.Changes) != 2 || r.Config.User != "z" {
		t.Errorf("got %+v", r)
	}
	if w := call(t, s, "POST /commit?container=two", "null"); w.Code != 201 || asked["two"].Config != nil || !asked["two"].Pause {
		t.Errorf("%d %+v", w.Code, asked["two"])
	}
}

func TestExportIsATarOrAnError(t *testing.T) {
	s := newServer(&fakeContainers{})
	if w := call(t, s, "GET /containers/there/export"); w.Code != 200 || w.Body.String() != "a tar" || w.Header().Get("Content-Type") != "application/x-tar" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := call(t, s, "GET /containers/none/export"); w.Code != 404 || w.Header().Get("Content-Type") != "application/json" || w.Body.String() != `{"message":"No such container: none"}`+"\n" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}

// An archive that ends early must not look whole: the connection is cut.
func TestHalfAnExportIsAnError(t *testing.T) {
	path := onSocket(t, newServer(&fakeContainers{}))
	for name, whole := range map[string]bool{"there": true, "damaged": false} {
		said := readAll(t, raw(t, path, "GET /containers/"+name+"/export HTTP/1.1\nHost: d\nConnection: close\n\n"))
		answer, err := http.ReadResponse(bufio.NewReader(strings.NewReader(said)), nil)
		if err == nil {
			_, err = io.ReadAll(answer.Body)
		}
		if (err == nil) != whole {
			t.Errorf("%s: %v in %q", name, err, said)
		}
	}
}
