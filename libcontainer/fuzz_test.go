package libcontainer

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/libcontainer/seccomp"
	"github.com/engined/engined/nsenter"
)

// FuzzSpec takes any bytes for a config.json through all that is pure: the
// glance before the clone, decoding, validation, the plans of create and exec,
// the filter, and the plan's encoding.
//
//	go test ./libcontainer -tags seccomp -fuzz Spec -parallel 1
func FuzzSpec(f *testing.F) {
	for _, change := range goldenPlans {
		spec := baseSpec()
		change(spec, fixedFacts())
		config, err := json.Marshal(spec)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(config)
	}
	if profile, err := os.ReadFile("seccomp/testdata/dockerd-20.10.json"); err == nil {
		f.Add([]byte(`{"process":{"args":["x"],"cwd":"/"},"root":{"path":"r"},"linux":{"seccomp":` + string(profile) + `}}`))
	}
	f.Fuzz(func(t *testing.T, config []byte) {
		glance, sure := readEarly(config)
		var spec specs.Spec
		if json.Unmarshal(config, &spec) != nil {
			return
		}
		if err := validate(&spec); err != nil {
			if err.Error() == "" {
				t.Error("an error without words")
			}
			return
		}
		if sure {
			glance.agrees(&spec)
		}
		compileAll(t, &spec)
	})
}

func compileAll(t *testing.T, spec *specs.Spec) {
	t.Helper()
	for _, host := range []func(*facts){func(*facts) {}, goldenV2} {
		known := fixedFacts()
		host(known)
		plan, err := compilePlan(spec, known)
		if err != nil {
			continue
		}
		wantSound(t, plan)
	}
	if plan, err := compileExec(spec.Process, spec.Linux, namespacesOf(spec), fixedFacts()); err == nil {
		wantSound(t, plan)
	}
	if profile := spec.Linux.Seccomp; profile != nil && len(profile.Syscalls) < 20 {
		if filter, err := seccomp.Compile(profile); err == nil && len(filter.Program)%8 != 0 {
			t.Errorf("a filter of %d bytes", len(filter.Program))
		}
	}
}

// wantSound checks what holds for every plan: it ends in execve, changes the
// root at most once, and makes nothing below it afterwards.
func wantSound(t *testing.T, plan *nsenter.Plan) {
	t.Helper()
	if len(plan.Ops) == 0 || plan.Ops[len(plan.Ops)-1].Code != nsenter.Exec {
		t.Fatalf("the plan does not end in execve:\n%s", plan)
	}
	switched := false
	for i := range plan.Ops {
		switch op := &plan.Ops[i]; op.Code {
		case nsenter.Pivot, nsenter.MoveRoot:
			if switched {
				t.Errorf("operation %d changes the root again:\n%s", i, plan)
			}
			switched = true
		case nsenter.Mount, nsenter.Tree, nsenter.Attach, nsenter.Target, nsenter.Mknod, nsenter.Symlink, nsenter.Mask, nsenter.Write:
			if switched {
				t.Errorf("operation %d works on the root that was left:\n%s", i, plan)
			}
		}
	}
	if encoded, err := plan.Encode(); err == nil && len(encoded) == 0 {
		t.Error("an empty encoding")
	}
}
