// Command stack starts and stops the instance of `make run`, below ./.run.
//
//	stack up     start it if it does not run, show a first container and the processes
//	stack down   remove its containers, stop it, remove ./.run
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "stack:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: stack up|down")
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("containers need root; you are uid %d", os.Geteuid())
	}
	top, err := os.Getwd()
	if err != nil {
		return err
	}
	places, err := placesBelow(filepath.Join(top, ".run"), filepath.Join(top, "bin"))
	if err != nil {
		return err
	}
	switch args[0] {
	case "up":
		return up(places)
	case "down":
		return down(places)
	}
	return fmt.Errorf("usage: stack up|down")
}
