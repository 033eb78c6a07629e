package libcontainer

import "github.com/opencontainers/runtime-spec/specs-go"

// Numbers of set_mempolicy(2), from the kernel's mempolicy.h.
var memoryModes = map[specs.MemoryPolicyModeType]uint64{
	specs.MpolDefault: 0, specs.MpolPreferred: 1, specs.MpolBind: 2, specs.MpolInterleave: 3,
	specs.MpolLocal: 4, specs.MpolPreferredMany: 5, specs.MpolWeightedInterleave: 6,
}

var memoryFlags = map[specs.MemoryPolicyFlagType]uint64{
	specs.MpolFNumaBalancing: 1 << 13, specs.MpolFRelativeNodes: 1 << 14, specs.MpolFStaticNodes: 1 << 15,
}

// memoryPolicy is the mode with its flags, as set_mempolicy takes them.
func memoryPolicy(p *specs.LinuxMemoryPolicy) uint64 {
	mode := memoryModes[p.Mode]
	for _, flag := range p.Flags {
		mode |= memoryFlags[flag]
	}
	return mode
}

// checkMemoryPolicy leaves to the kernel which modes want nodes, and which
// nodes there are.
func checkMemoryPolicy(spec *specs.Spec) error {
	p := spec.Linux.MemoryPolicy
	if p == nil {
		return nil
	}
	if !hasKey(memoryModes, p.Mode) {
		return invalid("linux.memoryPolicy.mode", "expected a mode as MPOL_BIND, got %q", p.Mode)
	}
	for _, flag := range p.Flags {
		if !hasKey(memoryFlags, flag) {
			return invalid("linux.memoryPolicy.flags", "expected flags as MPOL_F_STATIC_NODES, got %q", flag)
		}
	}
	_, err := numberMask("linux.memoryPolicy.nodes", "memory nodes", p.Nodes)
	return err
}
