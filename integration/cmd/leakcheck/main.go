// Command leakcheck prints what containers, tests and instances of engined
// left on this machine and exits 1 if there is anything.
//
// What an instance that runs needs is no leak: its daemons, bridge, table and
// directories, and all that belongs to a container it lists.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/engined/engined/integration/leftovers"
)

// settle is how long teardown may go on after the last answer.
const settle = 5 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	instances, err := running(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "leakcheck:", err)
		os.Exit(2)
	}
	for _, instance := range instances {
		fmt.Println(instance)
	}
	if err := leftovers.Await(time.Now().Add(settle), leak(instances)); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("nothing left over")
}

// leak says of an item whether no instance accounts for it.
func leak(instances []*instance) func(leftovers.Item) bool {
	return func(item leftovers.Item) bool {
		for _, instance := range instances {
			if instance.owns(item) {
				return false
			}
		}
		return true
	}
}
