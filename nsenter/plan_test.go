package nsenter

import (
	"encoding/binary"
	"strings"
	"testing"
)

func TestEveryOperationHasAName(t *testing.T) {
	for code := Code(1); code < opCount; code++ {
		if strings.HasPrefix(code.String(), "operation-") {
			t.Errorf("operation %d of plan.h is unknown in Go", code)
		}
	}
}

// at reads a text or number of the encoded plan.
func textAt(plan []byte, at int) string {
	offset := binary.NativeEndian.Uint32(plan[at:])
	if offset == 0 {
		return ""
	}
	text, _, _ := strings.Cut(string(plan[offset:]), "\x00")
	return text
}

func TestEncodedLayout(t *testing.T) {
	plan := &Plan{}
	plan.Add(Op{Code: Mount, Flags: KeepMode, Text: [3]string{"source", "", "data"}, Num: [4]uint64{1, 2, 3, 1 << 40}})
	plan.Add(Op{Code: Seccomp, Blob: []byte("12345")})
	plan.Add(Op{Code: Env, Strings: []string{"A=b", ""}})
	encoded, err := plan.Encode()
	if err != nil {
		t.Fatal(err)
	}
	first := encoded[headerSize:]
	if Code(binary.NativeEndian.Uint16(first)) != Mount || Flag(binary.NativeEndian.Uint16(first[2:])) != KeepMode {
		t.Error("code or flags")
	}
	if textAt(encoded, headerSize+12) != "source" || textAt(encoded, headerSize+16) != "" || textAt(encoded, headerSize+20) != "data" {
		t.Error("texts")
	}
	if binary.NativeEndian.Uint64(first[48:]) != 1<<40 {
		t.Error("numbers")
	}
	second := encoded[headerSize+opSize:]
	blob, size := binary.NativeEndian.Uint32(second[4:]), binary.NativeEndian.Uint32(second[8:])
	if blob%blobAlign != 0 || string(encoded[blob:blob+size]) != "12345" {
		t.Error("blob")
	}
	third := encoded[headerSize+2*opSize:]
	blob, size = binary.NativeEndian.Uint32(third[4:]), binary.NativeEndian.Uint32(third[8:])
	if got := string(encoded[blob : blob+size]); got != strings.Repeat("\x00", 4*pointerSize)+"A=b\x00\x00" {
		t.Errorf("strings: %q", got)
	}
	if encoded[len(encoded)-1] != 0 || int(binary.NativeEndian.Uint32(encoded[12:])) != len(encoded) {
		t.Error("end or size")
	}
}

// CVE-2021-43784: runc's messages to its C stage have 16-bit lengths, and one that
// overflowed had the stage read what stood behind the first 64 KiB of an id map as
// messages. Here lengths and offsets have 32 bits, and a plan that would need more
// is refused.
func TestLengthsDoNotOverflow(t *testing.T) {
	const size = 1<<16 + 5
	plan := &Plan{}
	plan.Add(Op{Code: Seccomp, Blob: make([]byte, size)})
	plan.Add(Op{Code: Chdir, Text: [3]string{strings.Repeat("a", size)}})
	plan.Add(Op{Code: Chdir, Text: [3]string{"after"}})
	encoded, err := plan.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got := binary.NativeEndian.Uint32(encoded[headerSize+8:]); got != size {
		t.Errorf("the blob has %d bytes, expected %d", got, size)
	}
	if got := textAt(encoded, headerSize+opSize+12); len(got) != size {
		t.Errorf("the text has %d bytes, expected %d", len(got), size)
	}
	if got := textAt(encoded, headerSize+2*opSize+12); got != "after" {
		t.Errorf("behind them is %q", got)
	}
	plan.Add(Op{Code: Seccomp, Blob: make([]byte, maxPlanSize)})
	if _, err := plan.Encode(); err == nil || !strings.Contains(err.Error(), "expected at most") {
		t.Errorf("a plan that is too long: %v", err)
	}
}

func TestNULIsRefused(t *testing.T) {
	for _, op := range []Op{{Code: Chdir, Text: [3]string{"a\x00b"}}, {Code: Args, Strings: []string{"a\x00b"}}} {
		plan := &Plan{Ops: []Op{op}}
		if _, err := plan.Encode(); err == nil {
			t.Errorf("%v was encoded", op)
		}
	}
}

func TestMessageSurvivesTheWire(t *testing.T) {
	want := Message{Type: MessageError, Op: 7, Errno: 13, Where: WherePath, Value: -5}
	got, err := DecodeMessage(want.Encode())
	if err != nil || got != want {
		t.Errorf("got %+v %v", got, err)
	}
	if _, err := DecodeMessage([]byte("short")); err == nil {
		t.Error("a short message was read")
	}
}

func TestPrintedOperation(t *testing.T) {
	op := Op{Code: Attr, Flags: Recursive | Optional, Num: [4]uint64{1, 0, 0, 3}, Why: "why"}
	if got := op.String(); got != "attr 0x1 0x0 0x0 0x3 +optional +recursive    # why" {
		t.Errorf("got %q", got)
	}
}
