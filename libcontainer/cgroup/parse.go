package cgroup

import (
	"fmt"
	"strconv"
	"strings"
)

// parseFlat reads lines of "key value". Lines of another shape are skipped:
// kernels add some.
func parseFlat(text string) map[string]uint64 {
	values := make(map[string]uint64)
	for line := range strings.Lines(text) {
		key, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(rest, 10, 64); err == nil {
			values[key] = n
		}
	}
	return values
}

// parseNumber reads one number; "max" is the largest.
func parseNumber(text string) (uint64, error) {
	text = strings.TrimSpace(text)
	if text == "max" {
		return Unlimited, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("malformed number %q", text)
	}
	return n, nil
}

// readNumber reads a file with one number.
func readNumber(dir, file string) (uint64, error) {
	text, err := read(dir, file)
	if err != nil {
		return 0, fmt.Errorf("reading %s/%s: %w", dir, file, err)
	}
	n, err := parseNumber(text)
	if err != nil {
		return 0, fmt.Errorf("%s/%s: %w", dir, file, err)
	}
	return n, nil
}

// parseBlkio reads v1's lines "major:minor operation count". Totals, which have
// no device, are skipped.
func parseBlkio(text string) []IOEntry {
	var entries []IOEntry
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		major, minor, ok := parseDevice(fields[0])
		n, err := strconv.ParseUint(fields[2], 10, 64)
		if ok && err == nil {
			entries = append(entries, IOEntry{Major: major, Minor: minor, Op: fields[1], Value: n})
		}
	}
	return entries
}

// parseIO reads v2's io.stat, "major:minor rbytes=1 wbytes=2 rios=3 wios=4 ...",
// into v1's shape.
func parseIO(text string) (bytes, operations []IOEntry) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		major, minor, ok := parseDevice(fields[0])
		if !ok {
			continue
		}
		for _, field := range fields[1:] {
			key, number, _ := strings.Cut(field, "=")
			n, err := strconv.ParseUint(number, 10, 64)
			if err != nil {
				continue
			}
			entry := IOEntry{Major: major, Minor: minor, Value: n}
			switch key {
			case "rbytes", "rios":
				entry.Op = "Read"
			case "wbytes", "wios":
				entry.Op = "Write"
			case "dbytes", "dios":
				entry.Op = "Discard"
			default:
				continue
			}
			if strings.HasSuffix(key, "bytes") {
				bytes = append(bytes, entry)
			} else {
				operations = append(operations, entry)
			}
		}
	}
	return bytes, operations
}

func parseDevice(text string) (major, minor uint64, ok bool) {
	first, second, _ := strings.Cut(text, ":")
	major, err := strconv.ParseUint(first, 10, 32)
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.ParseUint(second, 10, 32)
	return major, minor, err == nil
}
