package main

import (
	"encoding/json"

	"github.com/engined/engined/libcontainer"
)

var featuresCommand = command{
	name: "features", max: 0,
	usage: "show the enabled features",
	description: `Show the enabled features, as JSON of the OCI runtime spec's features structure
(features.md). What this build does not do is absent or false.`,
	bind: func(*flags) action {
		return func(c *call) error {
			encoder := json.NewEncoder(c.stdout)
			encoder.SetIndent("", "    ")
			return encoder.Encode(libcontainer.Features(version, commit))
		}
	},
}
