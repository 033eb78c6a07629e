package container

import (
	"fmt"
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
