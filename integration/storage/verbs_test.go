package storage

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	gname "github.com/google/go-containerregistry/pkg/name"
	greg "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/engined/engined/integration/harness"
	"github.com/engined/engined/integration/images"
	"github.com/engined/engined/integration/rootfs"
)

// verbs are what the command line does with images, one after the other. What
// is to be printed is written down; where that is only known by running it ("="),
// it is what was printed first: by dockerd, where it is installed, else on the
// first driver. FROM and TO are registries, INDEX one that can be searched, DIGEST
// that of the image FROM/base:1.
var verbs = []verb{
	{"docker pull -q FROM/base:1", "FROM/base:1"},
	{"docker pull FROM/base:1 | sed -n '$!p'", "1: Pulling from base|Digest: DIGEST|Status: Image is up to date for FROM/base:1"},
	{"docker pull -q FROM/base@DIGEST", "FROM/base@DIGEST"},
	{"docker pull -a FROM/base | grep Status", "Status: Downloaded newer image for FROM/base"},
	{"docker images --digests --format '{{.Tag}} {{.Digest}} {{.Size}}' FROM/base | sort", "="},
	{"docker history --format '{{.CreatedBy}} {{.Size}}' FROM/base:1", "="},
	{"docker run --rm FROM/base:1 " + everyFile, "="},
	{"docker run --rm FROM/base:1 sh -c 'ls /bin/vi /etc/group; ls /home; cat /etc/passwd /hard' 2>/dev/null", "/etc/group|after|changed|changed"},

	{"docker search --limit 2 --filter stars=3 --format '{{.Name}} {{.StarCount}}' INDEX/busy", "busy/one 9|busy/two 3"},

	{"docker tag FROM/base:1 TO/copy:1; docker tag FROM/base:1 TO/copy:2; docker inspect -f '{{len .RepoTags}}' TO/copy:1; docker images -q --no-trunc | wc -l; docker images -q --no-trunc | sort -u | wc -l", "4|5|2"},
	{pushOnce, "1: digest: DIGEST"},
	{"docker push -aq TO/copy", "TO/copy"},
	{"docker manifest inspect --insecure TO/copy:2 | grep -c sha256", "3"},
	{"docker rmi TO/copy:1 TO/copy:2 | sed 's/@.*//' | sort -u", "Untagged: TO/copy|Untagged: TO/copy:1|Untagged: TO/copy:2"},
	{"docker rmi FROM/base:1 FROM/base:2 | sed 's/ .*//' | sort | uniq -c | tr -s ' '", " 3 Deleted:| 3 Untagged:"},
	{"docker run --rm TO/copy:1 " + everyFile + " 2>/dev/null", "="},

	{"docker create --name made TO/copy:1 true >/dev/null && docker start -a made && docker export made | tar -t | grep -c -e '^hard$' -e '^bin/busybox$' -e '^home/after$'", "3"},
	{"docker run --name change TO/copy:1 sh -c 'rm /fifo /etc/group; mkdir -p /new/dir; echo in >/new/dir/file; ln /new/dir/file /new/link; rm -r /home; mkdir /home; chmod 700 /etc'", ""},
	{"docker commit -a me -m why -c 'ENV K=v' -c 'CMD [\"cat\",\"/new/link\"]' change own/made:1 >/dev/null; docker run --rm own/made:1", "in"},
	{"docker run --rm own/made:1 " + everyFile, "="},
	{"docker inspect -f '{{.Author}} {{.Comment}} {{.Config.Env}} {{len .RootFS.Layers}}' own/made:1", "me why [K=v] 3"},
	{"docker history --format '{{.CreatedBy}} {{.Comment}} {{.Size}}' own/made:1 | head -n 1", "="},
	{"docker run -d --name runs TO/copy:1 sh -c 'echo here >/here; sleep 1000' >/dev/null; docker exec runs sh -c 'until test -s /here; do usleep 1000; done'; docker commit runs own/runs:1 >/dev/null; docker inspect -f '{{.State.Status}}' runs; docker run --rm own/runs:1 cat /here", "running|here"},

	{"docker export change | docker import -m flat -c 'CMD [\"cat\",\"/new/link\"]' - own/flat:1 >/dev/null; docker run --rm own/flat:1; docker history --format '{{.Comment}}' own/flat:1", "in|flat"},
	{"docker export change >tree.tar; docker import tree.tar own/tree:1 >/dev/null; docker inspect -f '{{.Size}}' own/flat:1 >size; docker inspect -f '{{.Size}}' own/tree:1 | cmp - size", ""},

	{"docker save -o all.tar own/made:1 own/flat:1 TO/copy:1; docker inspect -f '{{.Id}} {{.RootFS.Layers}}' own/made:1 own/flat:1 TO/copy:1 >before", ""},
	{saveNames, "index.json|manifest.json|oci-layout"},
	{"docker rm -f made change runs; docker rmi -f own/made:1 own/flat:1 own/tree:1 own/runs:1 TO/copy:1 >/dev/null; docker images --format '{{.Repository}}:{{.Tag}}'", "made|change|runs|busybox:latest"},
	{"docker load -i all.tar | sort", "Loaded image: TO/copy:1|Loaded image: own/flat:1|Loaded image: own/made:1"},
	{"docker inspect -f '{{.Id}} {{.RootFS.Layers}}' own/made:1 own/flat:1 TO/copy:1 | cmp - before; docker run --rm own/made:1 " + everyFile, "="},
	{"docker tag own/made:1 TO/made:1; docker push -q TO/made:1; docker rmi -f own/made:1 TO/made:1 >/dev/null; docker pull -q TO/made:1; docker inspect -f '{{.Id}} {{.RootFS.Layers}}' TO/made:1 >again; head -n 1 before | cmp - again", "TO/made:1|TO/made:1"},

	{"docker system df --format '{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}} {{.Reclaimable}}' | head -n 1", "="},
	{"docker system df -v --format '{{range .Images}}{{.Repository}}:{{.Tag}} {{.Size}} {{.SharedSize}} {{.UniqueSize}} {{.Containers}}|{{end}}' | tr '|' '\\n' | sort", "="},

	{"docker create --name maker own/flat:1 true >/dev/null; docker commit maker >/dev/null; docker commit -c 'LABEL keep=1' maker >/dev/null; docker image prune -f --filter label!=keep | grep -c '^deleted'; docker images -qf dangling=true | wc -l", "1|1"},
	{"docker rm maker; docker rmi $(docker images -qf dangling=true) | sed 's/:.*//'", "maker|Deleted"},
	{"docker rmi TO/copy:1 TO/made:1 | sed 's/:.*//' | sort | uniq -c | tr -s ' '", "="},
	{"docker image prune -af | grep -e '^untagged: own' -e Total", "="},
	{"docker images -a --format '{{.Repository}}:{{.Tag}}'", "busybox:latest"},
}

// verb is a line of shell and what it prints, with | for a newline.
type verb struct{ line, want string }

// ours are lines to which dockerd 20.10 answers otherwise: a layer that it pushes
// gets a digest of its own, and what it saves is no OCI layout, too.
var ours = map[string]bool{pushOnce: true, saveNames: true}

const (
	pushOnce  = "docker push TO/copy:1 | tail -n 1 | cut -d' ' -f1-3"
	saveNames = "docker save own/made:1 | tar -t | grep -e manifest.json -e index.json -e repositories -e oci-layout | sort"
)

// everyFile prints sums of all that can be seen of the files that are the
// image's. How many links a directory has is the file system's own affair.
const everyFile = `sh -c "find / -xdev -mindepth 1 ! -path '/proc*' ! -path '/sys*' ! -path '/dev*' ! -path '/etc/h*' ! -path '/etc/resolv.conf' ! -path '/etc/mtab' ! -name .dockerenv >/tmp/all; ` +
	`xargs stat -c '%N %F %a %u:%g %t:%T' </tmp/all | sort | sha256sum; xargs stat -c '%F %n %h %s' </tmp/all | grep -v ^directory | sort | sha256sum; ` +
	`find /bin /etc/passwd /hard /home /new -type f 2>/dev/null | xargs sha256sum | sort | sha256sum"`

// verbRun is the table's run on all drivers.
type verbRun struct {
	base  greg.Image
	from  *harness.Registry
	index string
	first []string // what was answered first, where the table leaves it open
}

func newVerbRun(t *testing.T) *verbRun {
	t.Helper()
	r := &verbRun{base: baseImage(t), from: harness.NewRegistry(t), index: searchIndex(t)}
	images.Put(t, r.from.Host+"/base:1", r.base)
	images.Put(t, r.from.Host+"/base:2", r.base)
	return r
}

// onDockerd carries the table out against dockerd.
func (r *verbRun) onDockerd(t *testing.T) {
	docker := harness.AnyCLI(t).At(t, harness.NewDockerd(t).Host())
	docker.Must(t, "create", "--name", "c1", harness.Image) // as on the others: it keeps the image
	r.on(t, docker, ours)
}

// onEngined carries the table out against engined on one driver.
func (r *verbRun) onEngined(t *testing.T, docker harness.CLI) {
	t.Helper()
	r.arrived(t, r.on(t, docker, nil)+"/copy:1")
}

// on carries the table out against one engine and returns the registry that it
// has pushed to. What an unknown line prints is not looked at.
func (r *verbRun) on(t *testing.T, docker harness.CLI, unknown map[string]bool) (pushed string) {
	t.Helper()
	to := harness.NewRegistry(t)
	digest, err := r.base.Digest()
	if err != nil {
		t.Fatal(err)
	}
	words := strings.NewReplacer("FROM", r.from.Host, "TO", to.Host, "INDEX", r.index, "DIGEST", digest.String())
	back := strings.NewReplacer(r.from.Host, "FROM", to.Host, "TO", r.index, "INDEX", digest.String(), "DIGEST")
	scratch := t.TempDir()
	var answers []string
	for i, verb := range verbs {
		got := docker.Shell(t, "set -e; cd "+scratch+"\n"+words.Replace(verb.line))
		answer := strings.ReplaceAll(strings.TrimSuffix(back.Replace(got.Stdout), "\n"), "\n", "|")
		answers = append(answers, answer)
		want := verb.want
		if want == "=" && r.first != nil {
			want = r.first[i]
		}
		if unknown[verb.line] {
			want = answer
		}
		if got.Status != 0 || want == "=" && answer == "" || want != "=" && answer != want {
			t.Errorf("$ %s\nexit status %d, %q, want 0, %q\n%s", verb.line, got.Status, answer, want, got.Stderr)
		}
	}
	if r.first == nil {
		r.first = answers
	}
	return to.Host
}

// arrived requires that what was pushed is what was pulled, every blob.
func (r *verbRun) arrived(t *testing.T, name string) {
	t.Helper()
	ref, err := gname.ParseReference(name)
	if err != nil {
		t.Fatal(err)
	}
	pushed, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(pushed); err != nil {
		t.Error(err)
	}
	want, _ := r.base.RawManifest()
	if got, err := pushed.RawManifest(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("pushed as %s, %v; want %s", got, err, want)
	}
}

// baseImage is busybox and a layer that changes it in all the ways there are.
func baseImage(t *testing.T) greg.Image {
	t.Helper()
	var below, above bytes.Buffer
	if err := rootfs.Tar(&below); err != nil {
		t.Fatal(err)
	}
	below.WriteString("another layer than the stack's busybox") // tar's end is before it
	out := tar.NewWriter(&above)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeReg, Name: "bin/.wh.vi"},
		{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o600, Uid: 3, Gid: 4, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}},
		{Typeflag: tar.TypeLink, Name: "hard", Linkname: "etc/passwd", Mode: 0o600, Uid: 3, Gid: 4},
		{Typeflag: tar.TypeDir, Name: "home/", Mode: 0o2755},
		{Typeflag: tar.TypeReg, Name: "home/.wh..wh..opq"},
		{Typeflag: tar.TypeReg, Name: "home/after", Mode: 0o4711, Uid: 1000},
		{Typeflag: tar.TypeSymlink, Name: "to", Linkname: "../../home/after"},
		{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o640},
		{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3},
	} {
		content := "changed\n"
		if h.Typeflag != tar.TypeReg || h.Mode == 0 {
			content = ""
		}
		h.Size = int64(len(content))
		if err := out.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(out, content)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return images.Image(t, "base", layerOf(t, below.Bytes()), layerOf(t, above.Bytes()))
}

func layerOf(t *testing.T, content []byte) greg.Layer {
	t.Helper()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// searchIndex answers searches, which docker-registry does not.
func searchIndex(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/search" || r.URL.Query().Get("q") != "busy" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, `{"query":"busy","num_results":3,"results":[{"name":"busy/one","star_count":9},{"name":"busy/none","star_count":1},{"name":"busy/two","star_count":3}]}`)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}
