package plainjson

// maxDepth is how deep values may be nested, as in encoding/json.
const maxDepth = 10000

// valid reports whether data is one value of RFC 8259 with space around it. It says
// of every document what json.Valid says, which takes twice as long.
func valid(data []byte) bool {
	g := grammar{data: data}
	g.space()
	if !g.value(0) {
		return false
	}
	g.space()
	return g.at == len(data)
}

// grammar is somewhere in data. Its methods go behind what they are named after, and
// report whether it was there.
type grammar struct {
	data []byte
	at   int
}

func (g *grammar) space() {
	for g.at < len(g.data) {
		switch g.data[g.at] {
		case ' ', '\t', '\r', '\n':
			g.at++
		default:
			return
		}
	}
}

// next is the byte that follows, 0 at the end.
func (g *grammar) next() byte {
	if g.at < len(g.data) {
		return g.data[g.at]
	}
	return 0
}

func (g *grammar) byte(c byte) bool {
	if g.at < len(g.data) && g.data[g.at] == c {
		g.at++
		return true
	}
	return false
}

func (g *grammar) value(depth int) bool {
	switch c := g.next(); c {
	case '"':
		return g.text()
	case '{':
		return depth < maxDepth && g.list('}', func() bool {
			if !g.text() {
				return false
			}
			g.space()
			if !g.byte(':') {
				return false
			}
			g.space()
			return g.value(depth + 1)
		})
	case '[':
		return depth < maxDepth && g.list(']', func() bool { return g.value(depth + 1) })
	case 't':
		return g.word("true")
	case 'f':
		return g.word("false")
	case 'n':
		return g.word("null")
	}
	return g.number()
}

// list is what is between two brackets, of which the first follows.
func (g *grammar) list(end byte, element func() bool) bool {
	g.at++
	g.space()
	if g.byte(end) {
		return true
	}
	for element() {
		g.space()
		if g.byte(end) {
			return true
		}
		if !g.byte(',') {
			return false
		}
		g.space()
	}
	return false
}

func (g *grammar) word(word string) bool {
	if len(g.data)-g.at < len(word) || string(g.data[g.at:g.at+len(word)]) != word {
		return false
	}
	g.at += len(word)
	return true
}

// text is a string. Like encoding/json it may hold what is not UTF-8.
func (g *grammar) text() bool {
	if !g.byte('"') {
		return false
	}
	for {
		rest := g.data[g.at:]
		plain := 0
		for plain < len(rest) && rest[plain] >= ' ' && rest[plain] != '"' && rest[plain] != '\\' {
			plain++
		}
		g.at += plain
		if !g.byte('\\') {
			return g.byte('"')
		}
		if !g.escape() {
			return false
		}
	}
}

// escape is what may follow a backslash.
func (g *grammar) escape() bool {
	c := g.next()
	g.at++
	switch c {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		for range 4 {
			c := g.next()
			if digit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' {
				g.at++
				continue
			}
			return false
		}
		return true
	}
	return false
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func (g *grammar) digits() bool {
	start := g.at
	for digit(g.next()) {
		g.at++
	}
	return g.at > start
}

func (g *grammar) number() bool {
	g.byte('-')
	if !g.byte('0') && !g.digits() {
		return false
	}
	if g.byte('.') && !g.digits() {
		return false
	}
	if g.byte('e') || g.byte('E') {
		if !g.byte('+') {
			g.byte('-')
		}
		return g.digits()
	}
	return true
}
