package harness

import "testing"

func TestDockerdRunsAContainer(t *testing.T) {
	reference := NewDockerd(t)
	EachCLI(t, func(t *testing.T, cli CLI) {
		result := cli.At(t, reference.Host()).Run(t, "run", "--rm", "busybox", "sh", "-c", "echo here; exit 7")
		if result.Status != 7 || result.Stdout != "here\n" {
			t.Errorf("%+v", result)
		}
	})
}
