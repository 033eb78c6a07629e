package spec

import specs "github.com/opencontainers/runtime-spec/specs-go"

// deviceRules: nothing but the harmless character devices that every container
// has, and what was given to this one. /dev/fuse is named to say that it is
// left out on purpose.
func deviceRules(in Input) []specs.LinuxDeviceCgroup {
	if in.HostConfig.Privileged {
		return []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	}
	rules := []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		character(true, 1, 5), // zero
		character(true, 1, 3), // null
		character(true, 1, 9), // urandom
		character(true, 1, 8), // random
		character(true, 5, 0), // tty
		character(true, 5, 1), // console
		character(false, 10, 229),
	}
	return append(rules, in.DeviceRules...)
}

func character(allow bool, major, minor int64) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: allow, Type: "c", Major: &major, Minor: &minor, Access: "rwm"}
}
