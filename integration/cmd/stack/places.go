package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
)

// longestSocket is what sun_path holds without its NUL, see unix(7); deepest is
// the longest path of a socket below the exec root: a shim's.
const (
	longestSocket = 107
	deepest       = len("/supervisor/") + 64 + len("/shim.sock")
)

// places says where the instance's things are.
type places struct {
	dir      string // ./.run
	bin      string
	execRoot string // dir/exec, or a short name in /run for a tree that lies deep
	socket   string
	bridge   string
	subnet   string
}

func placesBelow(dir, bin string) (places, error) {
	sum := sha256.Sum256([]byte(dir))
	tag := hex.EncodeToString(sum[:3])
	p := places{dir: dir, bin: bin, execRoot: filepath.Join(dir, "exec"), socket: filepath.Join(dir, "engined.sock"),
		bridge: "engined-" + tag, subnet: fmt.Sprintf("10.%d.%d.1/24", 128+sum[3]%64, sum[4])}
	short := filepath.Join("/run", "engined-"+tag)
	if len(p.execRoot)+deepest > longestSocket {
		p.execRoot = short
	}
	if len(p.socket) > longestSocket {
		p.socket = short + ".sock"
	}
	return p, os.MkdirAll(dir, 0o700)
}

func (p places) host() string    { return "unix://" + p.socket }
func (p places) pidfile() string { return filepath.Join(p.dir, "engined.pid") }
func (p places) log() string     { return filepath.Join(p.dir, "engined.log") }
func (p places) engined() string { return filepath.Join(p.bin, "engined") }
func (p places) data() string    { return filepath.Join(p.dir, "data") }
