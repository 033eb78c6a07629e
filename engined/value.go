package engined

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// value is a setting's place in a Config, written from the command line (as a
// flag.Value) or from JSON.
type value interface {
	String() string
	Set(text string) error
	decode(raw json.RawMessage) error
}

type text struct{ to *string }

func (v text) String() string                   { return deref(v.to) }
func (v text) Set(given string) error           { *v.to = given; return nil }
func (v text) decode(raw json.RawMessage) error { return decodeAs(raw, v.to, "a string") }

type truth struct{ to *bool }

func (v truth) String() string                   { return strconv.FormatBool(deref(v.to)) }
func (v truth) IsBoolFlag() bool                 { return true }
func (v truth) decode(raw json.RawMessage) error { return decodeAs(raw, v.to, "true or false") }
func (v truth) Set(given string) (err error) {
	if *v.to, err = strconv.ParseBool(given); err != nil {
		return fmt.Errorf("expected true or false, got %q", given)
	}
	return nil
}

type number struct{ to *int }

func (v number) String() string                   { return strconv.Itoa(deref(v.to)) }
func (v number) decode(raw json.RawMessage) error { return decodeAs(raw, v.to, "an integer") }
func (v number) Set(given string) (err error) {
	if *v.to, err = strconv.Atoi(given); err != nil {
		return fmt.Errorf("expected an integer, got %q", given)
	}
	return nil
}

// list is a flag that can be given again and again.
type list struct{ to *[]string }

func (v list) String() string                   { return "[" + strings.Join(deref(v.to), " ") + "]" }
func (v list) Set(given string) error           { *v.to = append(*v.to, given); return nil }
func (v list) decode(raw json.RawMessage) error { return decodeAs(raw, v.to, "an array of strings") }

// pairs is a flag of KEY=VALUE.
type pairs struct{ to *map[string]string }

func (v pairs) String() string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(deref(v.to))) {
		all = append(all, key+"="+(*v.to)[key])
	}
	return "[" + strings.Join(all, " ") + "]"
}

func (v pairs) Set(given string) error {
	key, to, ok := strings.Cut(given, "=")
	if !ok || key == "" {
		return fmt.Errorf("expected KEY=VALUE, got %q", given)
	}
	if *v.to == nil {
		*v.to = make(map[string]string)
	}
	(*v.to)[key] = to
	return nil
}

func (v pairs) decode(raw json.RawMessage) error {
	return decodeAs(raw, v.to, "an object of strings")
}

func decodeAs(raw json.RawMessage, to any, expected string) error {
	if err := json.Unmarshal(raw, to); err != nil {
		return fmt.Errorf("expected %s, got %s", expected, raw)
	}
	return nil
}

// deref is for String, which package flag calls on zero values.
func deref[T any](p *T) (zero T) {
	if p == nil {
		return zero
	}
	return *p
}
