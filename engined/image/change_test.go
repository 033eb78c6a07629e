package image

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/engined/engined/proto/errdefs"
)

func TestChanges(t *testing.T) {
	for changes, want := range map[string]string{
		`CMD ["a","b"]`:                                    `{"Cmd":["a","b"]}`,
		`cmd echo $HOME`:                                   `{"Cmd":["/bin/sh","-c","echo $HOME"]}`,
		`CMD [not json`:                                    `{"Cmd":["/bin/sh","-c","[not json"]}`,
		"# nothing\nENV A=\\\nb\n\nCMD":                    `{"Env":["A=b"],"Cmd":["/bin/sh","-c"]}`,
		"ENTRYPOINT":                                       `{}`,
		"CMD x\nENTRYPOINT [\"y\"]":                        `{"Entrypoint":["y"],"Cmd":["/bin/sh","-c","x"]}`,
		"ENV A=1\nENV A=2 B=$A\nWORKDIR /$B${C:-/c}":       `{"Env":["A=2","B=1"],"WorkingDir":"/1/c"}`,
		"ENV A=1 \nUSER ${A}\nVOLUME /$A ${A:+x} '$A'":     `{"User":"1","Env":["A=1"],"Volumes":{"$A":{},"/1":{},"x":{}}}`,
		`ENV P=a:$NOTHING Q="\$P" R=$`:                     `{"Env":["P=a:","Q=$P","R=$"]}`,
		`ENTRYPOINT ["/init"]`:                             `{"Entrypoint":["/init"]}`,
		"ENV A=1 B=\"two words\" C=x\\ y":                  `{"Env":["A=1","B=two words","C=x y"]}`,
		"ENV A=1\nENV A=2":                                 `{"Env":["A=2"]}`,
		`ENV A  the rest of it`:                            `{"Env":["A=the rest of it"]}`,
		`ENV A='$x "y"'`:                                   `{"Env":["A=$x \"y\""]}`,
		`LABEL a=b "c d"="e f"`:                            `{"Labels":{"a":"b","c d":"e f"}}`,
		`EXPOSE 80 53/udp 8000-8002`:                       `{"ExposedPorts":{"53/udp":{},"80/tcp":{},"8000/tcp":{},"8001/tcp":{},"8002/tcp":{}}}`,
		`EXPOSE 127.0.0.1:8080:80`:                         `{"ExposedPorts":{"80/tcp":{}}}`,
		`USER 1000:1000`:                                   `{"User":"1000:1000"}`,
		"WORKDIR /a\nWORKDIR b/../c":                       `{"WorkingDir":"/a/c"}`,
		`VOLUME /a /b`:                                     `{"Volumes":{"/a":{},"/b":{}}}`,
		`VOLUME ["/a b"]`:                                  `{"Volumes":{"/a b":{}}}`,
		`STOPSIGNAL SIGINT`:                                `{"StopSignal":"SIGINT"}`,
		`ONBUILD RUN make`:                                 `{"OnBuild":["RUN make"]}`,
		`HEALTHCHECK NONE`:                                 `{"Healthcheck":{"Test":["NONE"]}}`,
		`HEALTHCHECK --retries=3 CMD true`:                 `{"Healthcheck":{"Test":["CMD-SHELL","true"],"Retries":3}}`,
		`HEALTHCHECK --interval=5s --timeout=1s CMD ["a"]`: `{"Healthcheck":{"Test":["CMD","a"],"Interval":5000000000,"Timeout":1000000000}}`,
	} {
		got, err := applyChanges(dockerspec.DockerOCIImageConfig{}, strings.Split(changes, "\n"))
		raw, _ := json.Marshal(got)
		if err != nil || string(raw) != strings.ReplaceAll(want, "&", `\u0026`) {
			t.Errorf("%s: %s, %v; want %s", changes, raw, err, want)
		}
	}
}

func TestBadChangesAreRefused(t *testing.T) {
	for _, change := range []string{"FROM x", "RUN x", "# x", `ENV A=${X:?none}`, "ENV A=${X", "ENV A=${}", "ENV A=${X/a/b}", "ENV", "ENV A", "ENV A=1 B", `ENV A="x`, "ENV =x", "LABEL a", "EXPOSE x", "EXPOSE 0", "EXPOSE 70000",
		"EXPOSE 9-8", "EXPOSE 1/icmp", "EXPOSE nohost:1", "SHELL /bin/sh", "ONBUILD FROM x", "HEALTHCHECK RUN x", "HEALTHCHECK CMD", "HEALTHCHECK --interval=x CMD a",
		"HEALTHCHECK --interval=1us CMD a", "HEALTHCHECK --x=1 CMD a", "HEALTHCHECK --retries=-1 CMD a", `VOLUME [""]`, `ENV ""`} {
		if got, err := applyChanges(dockerspec.DockerOCIImageConfig{}, []string{change}); errdefs.KindOf(err) != errdefs.InvalidArgument {
			t.Errorf("%s: %+v, %v", change, got, err)
		}
	}
}

func FuzzChange(f *testing.F) {
	for _, seed := range []string{`ENV A="b c" D=e\ f`, `EXPOSE [::1]:80:1-9/udp`, `HEALTHCHECK --retries=1 CMD ["a"]`, `VOLUME ["/a"]`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, change string) {
		got, err := applyChanges(dockerspec.DockerOCIImageConfig{}, []string{change})
		if err != nil {
			return
		}
		for _, variable := range got.Env {
			if !strings.Contains(variable, "=") || strings.HasPrefix(variable, "=") {
				t.Errorf("%q made the variable %q", change, variable)
			}
		}
	})
}

func FuzzReference(f *testing.F) {
	for _, seed := range []string{"busybox", "a.b:5000/c/d:e", "x@sha256:" + strings.Repeat("0", 64), "sha256:abc", "A", "a:b:c"} {
		f.Add(seed, "latest")
	}
	f.Fuzz(func(t *testing.T, repository, tag string) {
		n, err := parseTag(repository, tag)
		if err != nil {
			if errdefs.KindOf(err) != errdefs.InvalidArgument {
				t.Errorf("%q %q: kind %q", repository, tag, errdefs.KindOf(err))
			}
			return
		}
		// What is stored is found again under its familiar form.
		again, err := reference.ParseNormalizedNamed(n.familiar())
		if err != nil || len(spellings(again)) != 1 || spellings(again)[0] != n || n.isDigest() {
			t.Errorf("%q %q: stored as %q, familiar %q, %v", repository, tag, n, n.familiar(), err)
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:` + strings.Repeat("0", 64) + `"]},"history":[{"empty_layer":true}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		parsed, err := parseConfig(raw)
		if err != nil {
			return
		}
		_, _ = parsed.comment(), parsed.created()
		if (parsed.chain == "") != (len(parsed.RootFS.DiffIDs) == 0) {
			t.Errorf("chain %q of %d layers", parsed.chain, len(parsed.RootFS.DiffIDs))
		}
	})
}
