//go:build !failpoints

package failpoint

// Enabled says whether this binary can be told to die.
const Enabled = false

// At marks a moment; without the build tag failpoints it does nothing.
func At(string) {}
