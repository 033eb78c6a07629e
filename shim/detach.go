package shim

// defaultDetachKeys is ctrl-p ctrl-q.
var defaultDetachKeys = []byte{16, 17}

// detachKeys looks for the bytes with which a client leaves. Bytes that may be
// their beginning are held until it is clear that they are not.
type detachKeys struct {
	keys []byte
	seen int // bytes of keys that are held
}

// filter returns what of data is for the process; detached says that the keys
// were found, and nothing after them is in rest.
func (d *detachKeys) filter(data []byte) (rest []byte, detached bool) {
	if d.seen == 0 && indexOf(data, d.keys[0]) < 0 {
		return data, false
	}
	rest = make([]byte, 0, len(data)+d.seen)
	for _, b := range data {
		// A mismatch gives up the shortest held prefix after which the rest may
		// still be a beginning.
		for d.seen > 0 && b != d.keys[d.seen] {
			keep := d.border(d.seen)
			rest = append(rest, d.keys[:d.seen-keep]...)
			d.seen = keep
		}
		if b != d.keys[d.seen] {
			rest = append(rest, b)
			continue
		}
		if d.seen++; d.seen == len(d.keys) {
			d.seen = 0
			return rest, true
		}
	}
	return rest, false
}

// border is the length of the longest proper prefix of keys[:n] that also ends it.
func (d *detachKeys) border(n int) int {
	for keep := n - 1; keep > 0; keep-- {
		if string(d.keys[:keep]) == string(d.keys[n-keep:n]) {
			return keep
		}
	}
	return 0
}

func indexOf(data []byte, b byte) int {
	for i := range data {
		if data[i] == b {
			return i
		}
	}
	return -1
}
