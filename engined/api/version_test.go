package api

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	apinetwork "github.com/moby/moby/api/types/network"
	apisystem "github.com/moby/moby/api/types/system"

	"github.com/engined/engined/engined/container"
)

// Each rule is a row: the last version of the old behaviour, the first of the
// new one, and the field that shows it.
func TestCreateMeansWhatItMeantInItsVersion(t *testing.T) {
	const body = `{"Image":"x","MacAddress":"02:42:ac:11:00:02","Healthcheck":{"StartInterval":5},"HostConfig":{
		"AutoRemove":true,"ConsoleSize":[3,4],"Annotations":{"a":"b"},
		"Mounts":[{"Type":"bind","BindOptions":{"NonRecursive":true,"ReadOnlyNonRecursive":true}},
			{"Type":"volume","VolumeOptions":{"Subpath":"s"}},{"Type":"tmpfs","TmpfsOptions":{"Options":[["o"]]}}]}}`
	for _, rule := range []struct {
		what     string
		last     string
		old      string
		first    string
		present  string
		observed func(container.CreateRequest) any
	}{
		{"AutoRemove", "1.24", `false`, "1.25", `true`, func(r container.CreateRequest) any { return r.HostConfig.AutoRemove }},
		{"NonRecursive", "1.39", `false`, "1.40", `true`, func(r container.CreateRequest) any { return r.HostConfig.Mounts[0].BindOptions.NonRecursive }},
		{"CgroupnsMode", "1.40", `"host"`, "1.41", `""`, func(r container.CreateRequest) any { return r.HostConfig.CgroupnsMode }},
		{"ConsoleSize", "1.41", `[0,0]`, "1.42", `[3,4]`, func(r container.CreateRequest) any { return r.HostConfig.ConsoleSize }},
		{"Annotations", "1.42", `null`, "1.43", `{"a":"b"}`, func(r container.CreateRequest) any { return r.HostConfig.Annotations }},
		{"StartInterval", "1.43", `0`, "1.44", `5`, func(r container.CreateRequest) any { return r.Config.Healthcheck.StartInterval }},
		{"ReadOnlyNonRecursive", "1.43", `false`, "1.44", `true`, func(r container.CreateRequest) any { return r.HostConfig.Mounts[0].BindOptions.ReadOnlyNonRecursive }},
		{"Subpath", "1.44", `""`, "1.45", `"s"`, func(r container.CreateRequest) any { return r.HostConfig.Mounts[1].VolumeOptions.Subpath }},
		{"TmpfsOptions", "1.45", `null`, "1.46", `[["o"]]`, func(r container.CreateRequest) any { return r.HostConfig.Mounts[2].TmpfsOptions.Options }},
		{"MacAddress", "1.51", `"02:42:ac:11:00:02"`, "1.52", `""`, func(r container.CreateRequest) any { return macOf(r) }},
	} {
		for version, want := range map[string]string{rule.last: rule.old, rule.first: rule.present} {
			got, w := createdAt(t, version, body)
			if w != "" {
				t.Fatalf("%s: %s", version, w)
			}
			if text := asJSON(t, rule.observed(got)); text != want {
				t.Errorf("%s in %s: %s, want %s", rule.what, version, text, want)
			}
		}
	}
}

func TestOnlyWhoAsksForASharedIPCNamespaceIsToldItIsNotThere(t *testing.T) {
	for body, want := range map[string]apicontainer.IpcMode{`{"Image":"x"}`: "", `{"Image":"x","HostConfig":{"IpcMode":"shareable"}}`: "shareable"} {
		for _, version := range []string{"1.24", "1.39", "1.40"} {
			if got, _ := createdAt(t, version, body); got.HostConfig.IpcMode != want {
				t.Errorf("%s %s: %q, want %q", version, body, got.HostConfig.IpcMode, want)
			}
		}
	}
}

func macOf(r container.CreateRequest) string {
	if r.NetworkingConfig == nil || r.NetworkingConfig.EndpointsConfig["bridge"] == nil {
		return ""
	}
	return r.NetworkingConfig.EndpointsConfig["bridge"].MacAddress.String()
}

func createdAt(t *testing.T, version, body string) (got container.CreateRequest, failure string) {
	t.Helper()
	s := newServer(&fakeContainers{create: func(request container.CreateRequest) (apicontainer.CreateResponse, error) {
		got = request
		return apicontainer.CreateResponse{ID: "1234"}, nil
	}})
	if w := call(t, s, "POST /v"+version+"/containers/create?name=n&platform=linux/amd64", body); w.Code != 201 {
		return got, w.Body.String()
	} else if text := strings.TrimSpace(w.Body.String()); text != `{"Id":"1234","Warnings":[]}` {
		t.Errorf("answer %s", text)
	}
	return got, ""
}

func asJSON(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestPlatformCameWith141(t *testing.T) {
	if got, _ := createdAt(t, "1.40", `{"Image":"x"}`); got.Platform != nil {
		t.Errorf("1.40: %v", got.Platform)
	}
	if got, _ := createdAt(t, "1.41", `{"Image":"x"}`); got.Platform == nil || got.Platform.OS != "linux" || got.Platform.Architecture != "amd64" {
		t.Errorf("1.41: %v", got.Platform)
	}
}

func TestMacAddressAndNoNetworkOfItsOwnConflict(t *testing.T) {
	if _, failure := createdAt(t, "1.41", `{"Image":"x","MacAddress":"02:42:ac:11:00:02","HostConfig":{"NetworkMode":"host"}}`); !strings.Contains(failure, "mac-address") {
		t.Errorf("got %q", failure)
	}
	if _, failure := createdAt(t, "1.41", `{"Image":"x","MacAddress":"zz"}`); !strings.Contains(failure, "Config.MacAddress") {
		t.Errorf("got %q", failure)
	}
}

func TestMacAddressGoesToTheEndpointThatIsGiven(t *testing.T) {
	for _, mode := range []string{"", "default"} {
		got, _ := createdAt(t, "1.43", `{"Image":"x","MacAddress":"02:42:ac:11:00:02","HostConfig":{"NetworkMode":"`+mode+`"},
			"NetworkingConfig":{"EndpointsConfig":{"default":{"IPAMConfig":{"IPv4Address":"172.18.0.50"}}}}}`)
		endpoints := got.NetworkingConfig.EndpointsConfig
		if one := endpoints["default"]; len(endpoints) != 1 || one.MacAddress.String() != "02:42:ac:11:00:02" || one.IPAMConfig.IPv4Address.String() != "172.18.0.50" {
			t.Errorf("mode %q: %s", mode, asJSON(t, endpoints))
		}
	}
}

// inspected is what a field of an inspect answer is, "-" if it is not there.
func inspected(t *testing.T, version Version, path string) string {
	t.Helper()
	c := apicontainer.InspectResponse{
		ID:         strings.Repeat("ab", 32),
		Config:     &apicontainer.Config{Hostname: "h"},
		HostConfig: &apicontainer.HostConfig{NetworkMode: "default"},
		NetworkSettings: &apicontainer.NetworkSettings{Networks: map[string]*apinetwork.EndpointSettings{
			"bridge": {IPAddress: netip.MustParseAddr("172.18.0.2"), IPPrefixLen: 16, EndpointID: "e", MacAddress: apinetwork.HardwareAddr{2, 0, 0, 0, 0, 1}},
			"mine":   {Aliases: []string{"web"}},
		}},
	}
	var tree any
	if err := json.Unmarshal([]byte(asJSON(t, version.inspect(c))), &tree); err != nil {
		t.Fatal(err)
	}
	for key := range strings.SplitSeq(path, ".") {
		object, _ := tree.(map[string]any)
		value, found := object[key]
		if !found {
			return "-"
		}
		tree = value
	}
	return asJSON(t, tree)
}

func TestInspectShowsOldVersionsWhatTheyRead(t *testing.T) {
	for _, rule := range []struct {
		path    string
		last    int
		old     string
		present string
	}{
		{"NetworkSettings.IPAddress", 51, `"172.18.0.2"`, "-"},
		{"NetworkSettings.IPPrefixLen", 51, `16`, "-"},
		{"NetworkSettings.MacAddress", 51, `"02:00:00:00:00:01"`, "-"},
		{"NetworkSettings.EndpointID", 51, `"e"`, "-"},
		{"NetworkSettings.Gateway", 51, `""`, "-"},
		{"NetworkSettings.Bridge", 51, `""`, "-"},
		{"NetworkSettings.SecondaryIPAddresses", 51, `null`, "-"},
		{"NetworkSettings.Networks.mine.Aliases", 44, `["web","abababababab"]`, `["web"]`},
		{"NetworkSettings.Networks.bridge.IPAddress", 44, `"172.18.0.2"`, `"172.18.0.2"`},
		{"Config.MacAddress", 51, `"02:00:00:00:00:01"`, "-"},
		{"Config.OnBuild", 51, `null`, "-"},
		{"Config.Hostname", 51, `"h"`, `"h"`},
		{"HostConfig.KernelMemory", 41, `0`, "-"},
		{"HostConfig.NetworkMode", 41, `"default"`, `"default"`},
	} {
		if got := inspected(t, Version{1, rule.last}, rule.path); got != rule.old {
			t.Errorf("%s in 1.%d: %s, want %s", rule.path, rule.last, got, rule.old)
		}
		if got := inspected(t, Version{1, rule.last + 1}, rule.path); got != rule.present {
			t.Errorf("%s in 1.%d: %s, want %s", rule.path, rule.last+1, got, rule.present)
		}
	}
}

func TestEventsHaveTheirOldFieldsUntil152(t *testing.T) {
	message := apievents.Message{Type: "container", Action: "die", Actor: apievents.Actor{ID: "1", Attributes: map[string]string{"image": "busybox"}}}
	if got := asJSON(t, Version{1, 51}.event(message)); !strings.HasPrefix(got, `{"status":"die","id":"1","from":"busybox",`) {
		t.Errorf("1.51: %s", got)
	}
	if got := asJSON(t, Version{1, 52}.event(message)); strings.Contains(got, "status") {
		t.Errorf("1.52: %s", got)
	}
	message.Type = "network"
	if got := asJSON(t, Version{1, 51}.event(message)); strings.Contains(got, "status") {
		t.Errorf("networks never had them: %s", got)
	}
}

func TestInfoNamesTheExpectedCommitsUntilTheyWent(t *testing.T) {
	info := apisystem.Info{RuncCommit: apisystem.Commit{ID: "v9"}}
	if got := asJSON(t, Version{1, 41}.info(info)); !strings.Contains(got, `"RuncCommit":{"ID":"v9","Expected":"v9"}`) || !strings.Contains(got, `"KernelMemory":false`) {
		t.Errorf("1.41: %s", got)
	}
	if got := asJSON(t, Version{1, 52}.info(info)); strings.Contains(got, "Expected") || strings.Contains(got, "KernelMemory") {
		t.Errorf("1.52: %s", got)
	}
}

func TestListIsNeverNullAndForgetsWhatOldVersionsDidNotHave(t *testing.T) {
	if got := asJSON(t, Version{1, 41}.list(nil)); got != "[]" {
		t.Errorf("got %s", got)
	}
	one := []apicontainer.Summary{{Health: &apicontainer.HealthSummary{}}}
	if got := (Version{1, 51}).list(one); got[0].Health != nil {
		t.Error("1.51 shows health")
	}
}
