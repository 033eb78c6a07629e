package logfile

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// plain says which bytes stand for themselves in Docker's JSON strings.
var plain = func() (table [256]bool) {
	for b := 0x20; b < utf8.RuneSelf; b++ {
		table[b] = true
	}
	for _, b := range `"\<>&` {
		table[b] = false
	}
	return table
}()

// One byte in all eight of a word.
const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// plainLength returns how many bytes at the start of text stand for themselves.
// It looks at eight at once: x-ones&^x has a high bit where, from the lowest
// byte on, the first is that is zero.
func plainLength(text []byte) (n int) {
	for ; n+8 <= len(text); n += 8 {
		x := binary.LittleEndian.Uint64(text[n:])
		quote := x&^(0x04*ones) ^ '"'*ones // and & (0x22, 0x26)
		angle := x&^(0x02*ones) ^ '<'*ones // and > (0x3c, 0x3e)
		slash := x ^ '\\'*ones
		found := (quote-ones)&^quote | (angle-ones)&^angle | (slash-ones)&^slash
		if (found|(x-0x20*ones)&^x|x)&highs != 0 {
			break
		}
	}
	for n < len(text) && plain[text[n]] {
		n++
	}
	return n
}

const hexDigits = "0123456789abcdef"

// appendEscaped appends text as the inside of a JSON string, escaped as
// Docker's json-file driver does it.
func appendEscaped(dst, text []byte) []byte {
	start := 0
	for i := plainLength(text); i < len(text); i += plainLength(text[i:]) {
		if b := text[i]; b < utf8.RuneSelf {
			dst = append(dst, text[start:i]...)
			dst = appendEscape(dst, b)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, text[start:i]...)
			dst = append(dst, `\ufffd`...)
			start = i + 1
		case r == '\u2028' || r == '\u2029': // line ends in JavaScript
			dst = append(dst, text[start:i]...)
			dst = append(dst, `\u202`...)
			dst = append(dst, hexDigits[r&15])
			start = i + size
		}
		i += size
	}
	return append(dst, text[start:]...)
}

func appendEscape(dst []byte, b byte) []byte {
	switch b {
	case '"', '\\':
		return append(dst, '\\', b)
	case '\n':
		return append(dst, `\n`...)
	case '\r':
		return append(dst, `\r`...)
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&15])
}

// unescape appends the JSON string at the start of s, whose opening quote is
// already gone, to dst and returns what follows its closing quote.
func unescape(dst, s []byte) (text, rest []byte, ok bool) {
	quote := bytes.IndexByte(s, '"')
	for {
		if quote < 0 {
			return dst, nil, false
		}
		i := bytes.IndexByte(s[:quote], '\\')
		if i < 0 {
			return append(dst, s[:quote]...), s[quote+1:], true
		}
		dst = append(dst, s[:i]...)
		size := 0
		if dst, size = unescapeOne(dst, s[i:]); size == 0 {
			return dst, nil, false
		}
		s = s[i+size:]
		if quote -= i + size; quote < 0 { // the quote was part of the escape
			quote = bytes.IndexByte(s, '"')
		}
	}
}

// unescapeOne appends what the escape at the start of s stands for. Surrogate
// pairs, which the writer never makes, are left to encoding/json: size 0.
func unescapeOne(dst, s []byte) (_ []byte, size int) {
	if len(s) < 2 {
		return dst, 0
	}
	switch s[1] {
	case 'n':
		return append(dst, '\n'), 2
	case 'r':
		return append(dst, '\r'), 2
	case 't':
		return append(dst, '\t'), 2
	case '"', '\\', '/':
		return append(dst, s[1]), 2
	case 'u':
		r, ok := hex4(s[2:])
		if !ok || r >= 0xd800 && r < 0xe000 {
			return dst, 0
		}
		return utf8.AppendRune(dst, r), 6
	}
	return dst, 0
}

func hex4(s []byte) (r rune, ok bool) {
	if len(s) < 4 {
		return 0, false
	}
	for _, c := range s[:4] {
		d := bytes.IndexByte([]byte(hexDigits), c|0x20)
		if d < 0 {
			return 0, false
		}
		r = r<<4 | rune(d)
	}
	return r, true
}
