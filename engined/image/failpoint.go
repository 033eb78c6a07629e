package image

// failpoint marks the moments between which a crash must be survivable. It does
// nothing, except in tests and in builds with the tag failpoints.
var failpoint = func(name string) {}
