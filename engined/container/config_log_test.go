package container

import (
	"fmt"
	"strings"
	"testing"

	apicontainer "github.com/moby/moby/api/types/container"
)

func TestLogOptionsOfTheDaemonAreForItsDriver(t *testing.T) {
	daemon := apicontainer.LogConfig{Config: map[string]string{"max-size": "1m", "compress": "true"}}
	for given, want := range map[*apicontainer.LogConfig]string{
		{}: "{json-file map[compress:true max-size:1m]}",
		{Config: map[string]string{"max-size": "2m"}}:                "{json-file map[compress:true max-size:2m]}",
		{Type: jsonFile, Config: map[string]string{"max-file": "3"}}: "{json-file map[compress:true max-file:3 max-size:1m]}",
		{Type: "local"}: "{local map[]}",
	} {
		if fillInLog(given, daemon); fmt.Sprint(*given) != want {
			t.Errorf("%v, expected %s", *given, want)
		}
	}
	if len(daemon.Config) != 2 {
		t.Errorf("the daemon's own became %v", daemon.Config)
	}
}

func TestLogAttributesAreChosenAsDockerChoosesThem(t *testing.T) {
	for _, test := range []struct {
		config map[string]string
		want   string
	}{
		{map[string]string{}, "map[]"},
		{map[string]string{"labels": "tier,absent", "env": "HOME,EMPTY,BARE"}, "map[EMPTY: HOME:/root tier:front]"},
		{map[string]string{"labels-regex": "^ti", "env-regex": "^HO"}, "map[HOME:/root tier:front]"},
		{map[string]string{"labels": "both", "env": "both"}, "map[both:variable]"},
		{map[string]string{"tag": "{{.Name}}/{{.ID}}/{{.ImageName}}/{{.ImageID}}/{{.FullID}}"}, "map[tag:web/0123456789ab/busybox/sha256:ffffa/0123456789abcdef]"},
		{map[string]string{"tag": "{{upper .DaemonName}} {{.Command}} {{index .ContainerLabels \"tier\"}}"}, "map[tag:DOCKER sh -c true front]"},
	} {
		r := &Record{
			ID: "0123456789abcdef", Name: "web", Path: "sh", Args: []string{"-c", "true"}, Image: "sha256:ffffaaaabbbb",
			Config: &apicontainer.Config{
				Image: "busybox", Labels: map[string]string{"tier": "front", "both": "label"}, Env: []string{"HOME=/root", "EMPTY=", "BARE", "both=variable"},
			},
			HostConfig: &apicontainer.HostConfig{LogConfig: apicontainer.LogConfig{Type: jsonFile, Config: test.config}},
		}
		log, err := logSpec(r, "/log")
		if err != nil || fmt.Sprint(log.Attrs) != test.want {
			t.Errorf("%v: %v, %v, expected %s", test.config, log.Attrs, err, test.want)
		}
	}
}

func TestLogOptionsThatCannotBeReadAreRefused(t *testing.T) {
	for option, value := range map[string]string{"tag": "{{.Nothing}}", "labels-regex": "(", "env-regex": "["} {
		r := &Record{Config: &apicontainer.Config{}, HostConfig: &apicontainer.HostConfig{LogConfig: apicontainer.LogConfig{Type: jsonFile, Config: map[string]string{option: value}}}}
		if _, err := logSpec(r, "/log"); err == nil || !strings.HasPrefix(err.Error(), option+": ") {
			t.Errorf("%s: %v", option, err)
		}
	}
}
