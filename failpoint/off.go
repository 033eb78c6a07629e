//go:build !failpoints

package failpoint

// Enabled says whether this binary can be told to die.
const Enabled = false

// At marks a moment; without the build tag failpoints it does nothing.
func At(string) {}

// Wants is At for a process that is not this one; it never does.
func Wants(string) bool { return false }

// Die is for a point that Wants has named; without the tag there is none.
func Die() {}
