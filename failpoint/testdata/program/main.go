// The program passes two points three times.
package main

import "github.com/engined/engined/failpoint"

func main() {
	for range 3 {
		failpoint.At("first")
		failpoint.At("second")
	}
}
