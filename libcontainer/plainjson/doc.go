// Package plainjson decodes config.json into the types of runtime-spec, and a
// container's state.json.
//
// encoding/json prepares, at the first value of a type, an encoder and a
// decoder for every type that can be reached from it, 75 structs from
// specs.Spec. The first and only decoding of a plain spec takes it 1.0 ms, of
// dockerd's 0.9, of the 5 that a whole run takes (2026-11-21, Go 1.26); with
// GOEXPERIMENT=jsonv2 0.34 and 0.56. This package looks at those fields alone
// that the document has: 0.12 and 0.32. encoding/json still says what is wrong with a
// document that is not JSON, and does what is rare: escapes, any.
//
// It decodes what encoding/json does, with two differences. A key that is given
// twice in one object is an error: which of the two counts is a matter of taste,
// and a container is no place for it. And the first value of a wrong kind ends
// it, with the path of the field and what was expected.
//
// Start reading at Unmarshal; FuzzUnmarshal and FuzzValid compare it with encoding/json.
package plainjson
