package image

import (
	"fmt"
	"strings"
)

// pairsOf reads key=value pairs, or the old form: key, space, all the rest. The
// variables in them are those of env, which the pairs themselves do not change.
func pairsOf(word, rest string, env []string) ([][2]string, error) {
	words := rawWords(rest)
	if !strings.Contains(words[0], "=") {
		key, value, found := strings.Cut(rest, " ")
		if !found {
			return nil, fmt.Errorf("%s must have two arguments", word)
		}
		pair, err := expandPair(key, strings.TrimSpace(value), env)
		return [][2]string{pair}, err
	}
	var pairs [][2]string
	for _, word := range words {
		key, value, found := strings.Cut(word, "=")
		if !found {
			return nil, fmt.Errorf("Syntax error - can't find = in %q. Must be of the form: name=value", word)
		}
		pair, err := expandPair(key, value, env)
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, pair)
	}
	return pairs, nil
}

func expandPair(key, value string, env []string) (pair [2]string, err error) {
	if pair[0], err = expand(key, env); err != nil {
		return pair, err
	}
	if pair[0] == "" {
		return pair, fmt.Errorf("names can not be blank")
	}
	pair[1], err = expand(value, env)
	return pair, err
}

// rawWords splits at spaces outside of quotes, which stay. There is at least one.
func rawWords(text string) []string {
	var words []string
	begin, quote := -1, byte(0)
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && quote != '\'' && i+1 < len(text):
			if begin < 0 {
				begin = i
			}
			i++
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == ' ' || c == '\t'):
			if begin >= 0 {
				words = append(words, text[begin:i])
			}
			begin = -1
		default:
			if quote == 0 && (c == '"' || c == '\'') {
				quote = c
			}
			if begin < 0 {
				begin = i
			}
		}
	}
	if begin >= 0 || len(words) == 0 {
		words = append(words, text[max(begin, 0):])
	}
	return words
}

// expand takes a word's quotes away and puts the variables' values in, as the
// builder does: $name, ${name}, and ${name} with :- :+ :? - + ? and a word.
func expand(word string, env []string) (string, error) {
	e := expansion{text: word, env: env}
	value, err := e.until(0)
	if err != nil {
		return "", fmt.Errorf("failed to process %q: %w", word, err)
	}
	return value, nil
}

// expansion reads a word once, from front to back.
type expansion struct {
	text string
	at   int
	env  []string
}

func (e *expansion) more() bool { return e.at < len(e.text) }

// until expands up to the byte end, which it takes; 0 is the end of the word.
func (e *expansion) until(end byte) (string, error) {
	var out strings.Builder
	for e.more() {
		c := e.text[e.at]
		e.at++
		var part string
		var err error
		switch {
		case end != 0 && c == end:
			return out.String(), nil
		case c == '\'':
			part, err = e.single()
		case c == '"':
			part, err = e.double()
		case c == '$':
			part, err = e.dollar()
		case c == '\\':
			if e.more() {
				part = e.text[e.at : e.at+1]
				e.at++
			}
		default:
			part = string([]byte{c})
		}
		if err != nil {
			return "", err
		}
		out.WriteString(part)
	}
	if end != 0 {
		return "", fmt.Errorf("unexpected end of statement while looking for matching %c", end)
	}
	return out.String(), nil
}

// single is what stands between single quotes: it means itself.
func (e *expansion) single() (string, error) {
	length := strings.IndexByte(e.text[e.at:], '\'')
	if length < 0 {
		return "", fmt.Errorf("unexpected end of statement while looking for matching single-quote")
	}
	part := e.text[e.at : e.at+length]
	e.at += length + 1
	return part, nil
}

// double is what stands between double quotes.
func (e *expansion) double() (string, error) {
	var out strings.Builder
	for e.more() {
		c := e.text[e.at]
		e.at++
		switch {
		case c == '"':
			return out.String(), nil
		case c == '$':
			part, err := e.dollar()
			if err != nil {
				return "", err
			}
			out.WriteString(part)
		case c == '\\' && e.more() && strings.IndexByte(`"$\`, e.text[e.at]) >= 0:
			out.WriteByte(e.text[e.at])
			e.at++
		default:
			out.WriteByte(c)
		}
	}
	return "", fmt.Errorf("unexpected end of statement while looking for matching double-quote")
}

// dollar is a variable. A dollar before anything else is one.
func (e *expansion) dollar() (string, error) {
	if !e.more() || e.text[e.at] != '{' {
		name := e.name()
		if name == "" {
			return "$", nil
		}
		value, _ := e.lookUp(name)
		return value, nil
	}
	e.at++
	name := e.name()
	if name == "" {
		return "", fmt.Errorf("bad substitution")
	}
	value, set := e.lookUp(name)
	if !e.more() {
		return "", fmt.Errorf("syntax error: missing '}'")
	}
	operator := e.text[e.at]
	e.at++
	switch operator {
	case '}':
		return value, nil
	case ':':
		if !e.more() {
			return "", fmt.Errorf("syntax error: missing ':' in substitution")
		}
		operator, set = e.text[e.at], value != ""
		e.at++
	}
	return e.substitute(name, operator, value, set)
}

// substitute is the variable or the word that follows, as the operator wants.
func (e *expansion) substitute(name string, operator byte, value string, set bool) (string, error) {
	if strings.IndexByte("-+?", operator) < 0 {
		return "", fmt.Errorf("unsupported modifier (%c) in substitution", operator)
	}
	word, err := e.until('}')
	switch {
	case err != nil:
		return "", err
	case operator == '+' && !set, operator == '-' && set:
		return map[byte]string{'-': value}[operator], nil
	case operator == '?' && !set:
		if word == "" {
			word = "is not allowed to be unset"
		}
		return "", fmt.Errorf("%s: %s", name, word)
	case operator == '?':
		return value, nil
	}
	return word, nil
}

func (e *expansion) name() string {
	begin := e.at
	for e.more() {
		c := e.text[e.at]
		digit := c >= '0' && c <= '9'
		if c != '_' && !digit && (c|0x20 < 'a' || c|0x20 > 'z') || digit && e.at == begin {
			break
		}
		e.at++
	}
	return e.text[begin:e.at]
}

func (e *expansion) lookUp(name string) (value string, set bool) {
	for _, each := range e.env {
		if key, value, _ := strings.Cut(each, "="); key == name {
			return value, true
		}
	}
	return "", false
}
