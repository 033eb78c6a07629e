package plainjson

import "bytes"

// Member returns the raw value that a path of keys leads to, nil if there is
// none or data is not JSON as far as it was looked at.
func Member(data []byte, path ...string) []byte {
	for _, key := range path {
		if data = lookUp(data, key); data == nil {
			return nil
		}
	}
	return data
}

// lookUp returns the value of a key of the object that data starts with.
func lookUp(data []byte, key string) []byte {
	data = skipSpace(data)
	if len(data) == 0 || data[0] != '{' {
		return nil
	}
	data = data[1:]
	for {
		data = skipSpace(data)
		name := value(data)
		rest := skipSpace(data[len(name):])
		if len(name) < 2 || name[0] != '"' || len(rest) == 0 || rest[0] != ':' {
			return nil
		}
		rest = skipSpace(rest[1:])
		found := value(rest)
		if found == nil {
			return nil
		}
		if string(name[1:len(name)-1]) == key {
			return found
		}
		data = skipSpace(rest[len(found):])
		if len(data) == 0 || data[0] != ',' {
			return nil
		}
		data = data[1:]
	}
}

func skipSpace(data []byte) []byte { return bytes.TrimLeft(data, " \t\r\n") }

// value returns the value that data starts with, nil if it does not end.
func value(data []byte) []byte {
	depth := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			end := stringEnd(data[i+1:])
			if end < 0 {
				return nil
			}
			i += end + 1
		case '{', '[':
			depth++
			continue
		case '}', ']':
			if depth == 0 {
				return data[:i]
			}
			depth--
		case ',', ':', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return data[:i]
			}
			continue
		default:
			continue
		}
		if depth == 0 {
			return data[:i+1]
		}
	}
	return nil
}

// stringEnd returns where the closing quote is.
func stringEnd(data []byte) int {
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}
