package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/engined/engined/libcontainer"
	"github.com/engined/engined/proto/errdefs"
)

var listCommand = command{
	name: "list", max: 0,
	usage: "lists containers started by ocirun with the given root",
	description: `To list containers created via the default "--root":
       # ocirun list

To list containers created using a non-default value for "--root":
       # ocirun --root value list`,
	bind: func(f *flags) action {
		format := f.text("format", "f", "table", "select one of: table or json")
		quiet := f.flag("quiet", "q", "display only container IDs")
		return func(c *call) error {
			views, err := c.views()
			if err != nil {
				return err
			}
			switch {
			case *quiet:
				for _, v := range views {
					fmt.Fprintln(c.stdout, v.ID)
				}
				return nil
			case *format == "table":
				return c.printTable(views)
			case *format == "json":
				return json.NewEncoder(c.stdout).Encode(views)
			}
			return errdefs.InvalidArgument.Errorf("invalid format option")
		}
	},
}

// views describes every container. One that is removed meanwhile is left out.
func (c *call) views() ([]containerState, error) {
	containers, skipped, err := libcontainer.List(c.root)
	if errors.Is(err, os.ErrNotExist) && c.root == libcontainer.DefaultRoot() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, err := range skipped {
		fmt.Fprintln(c.stderr, err)
	}
	var views []containerState
	names := make(map[uint32]string)
	for _, container := range containers {
		v, err := view(container)
		if err != nil {
			fmt.Fprintf(c.stderr, "status for %s: %v\n", container.ID, err)
			continue
		}
		uid, err := container.OwnerID()
		if errdefs.CodeOf(err) == errdefs.NoSuchContainer {
			continue
		}
		if err != nil {
			return nil, err
		}
		if _, known := names[uid]; !known {
			names[uid] = userName(uid)
		}
		v.Owner = names[uid]
		views = append(views, v)
	}
	return views, nil
}

// userName looks the user up in /etc/passwd, without os/user: that would link
// the C library's name services.
func userName(uid uint32) string {
	number := strconv.FormatUint(uint64(uid), 10)
	passwd, err := os.ReadFile("/etc/passwd")
	if err == nil {
		for line := range strings.Lines(string(passwd)) {
			fields := strings.Split(line, ":")
			if len(fields) > 3 && fields[2] == number {
				return fields[0]
			}
		}
	}
	return "#" + number
}

func (c *call) printTable(views []containerState) error {
	w := tabwriter.NewWriter(c.stdout, 12, 1, 3, ' ', 0)
	fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
	for _, v := range views {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", v.ID, v.Pid, v.Status, v.Bundle, v.Created.Format(time.RFC3339Nano), v.Owner)
	}
	return w.Flush()
}
