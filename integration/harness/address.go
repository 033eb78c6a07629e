package harness

import (
	"fmt"
	"os/exec"
	"testing"
)

// LoopbackAddress gives the loopback device one more address for the time of the
// test, outside of 127.0.0.0/8: engines treat that as insecure.
func LoopbackAddress(t testing.TB) string {
	t.Helper()
	NeedRoot(t)
	address := fmt.Sprintf("10.214.%d.%d", randomByte(), 1+randomByte()/2)
	if out, err := exec.Command("ip", "addr", "add", address+"/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Skipf("no address for the loopback device: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "addr", "del", address+"/32", "dev", "lo").CombinedOutput(); err != nil {
			t.Errorf("removing %s: %v: %s", address, err, out)
		}
	})
	return address
}
