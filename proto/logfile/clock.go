package logfile

import "time"

// clock formats times in UTC as time.RFC3339Nano does, remembering the second.
type clock struct {
	second int64
	prefix []byte // 2006-01-02T15:04:05 of second
	buf    []byte
}

func (c *clock) stamp(now time.Time) []byte {
	if second := now.Unix(); second != c.second || c.prefix == nil {
		c.second = second
		c.prefix = now.UTC().AppendFormat(c.prefix[:0], "2006-01-02T15:04:05")
	}
	c.buf = append(c.buf[:0], c.prefix...)
	if nanos := now.Nanosecond(); nanos != 0 {
		var digits [9]byte
		last := 0
		for i := 8; i >= 0; i-- {
			digits[i] = byte('0' + nanos%10)
			if digits[i] != '0' && last == 0 {
				last = i + 1
			}
			nanos /= 10
		}
		c.buf = append(c.buf, '.')
		c.buf = append(c.buf, digits[:last]...)
	}
	c.buf = append(c.buf, 'Z')
	return c.buf
}

// secondCache parses what clock formats, remembering the second.
type secondCache struct {
	prefix [19]byte
	unix   int64
	valid  bool
}

func (c *secondCache) parse(stamp []byte) (time.Time, bool) {
	const prefix = len("2006-01-02T15:04:05")
	if len(stamp) <= prefix || stamp[len(stamp)-1] != 'Z' {
		t, err := time.Parse(time.RFC3339Nano, string(stamp))
		return t, err == nil
	}
	if !c.valid || string(c.prefix[:]) != string(stamp[:prefix]) {
		t, err := time.Parse("2006-01-02T15:04:05", string(stamp[:prefix]))
		if err != nil {
			return time.Time{}, false
		}
		copy(c.prefix[:], stamp)
		c.unix, c.valid = t.Unix(), true
	}
	nanos, ok := parseFraction(stamp[prefix : len(stamp)-1])
	return time.Unix(c.unix, nanos).UTC(), ok
}

// parseFraction parses ".123456789" or nothing.
func parseFraction(digits []byte) (nanos int64, ok bool) {
	if len(digits) == 0 {
		return 0, true
	}
	if digits[0] != '.' || len(digits) < 2 || len(digits) > 10 {
		return 0, false
	}
	scale := int64(1e9)
	for _, d := range digits[1:] {
		if d < '0' || d > '9' {
			return 0, false
		}
		scale /= 10
		nanos += int64(d-'0') * scale
	}
	return nanos, true
}
