package client

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	units "github.com/docker/go-units"
	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// table returns a writer that aligns columns as docker does.
func table(out io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(out, 10, 1, 3, ' ', 0) }

func ps(ctx context.Context, s *session, f *flags, args []string) error {
	var o client.ContainerListOptions
	var quiet, whole bool
	var filters []string
	last := 0
	f.truth(&o.All, "all", "a", "also those that do not run")
	f.truth(&quiet, "quiet", "q", "ids only")
	f.truth(&whole, "no-trunc", "", "do not cut anything off")
	f.list(&filters, "filter", "f", "`KEY=VALUE`")
	f.set.IntVar(&last, "last", 0, "the last `N` created")
	f.set.IntVar(&last, "n", 0, "short for --last")
	if _, err := f.parse(args, 0, 0); err != nil {
		return err
	}
	o.Limit = last
	var err error
	if o.Filters, err = filtersOf(filters); err != nil {
		return err
	}
	found, err := s.api.ContainerList(ctx, o)
	if err != nil {
		return err
	}
	if quiet {
		for _, c := range found.Items {
			fmt.Fprintln(s.out, short(c.ID, whole))
		}
		return nil
	}
	w := table(s.out)
	fmt.Fprintln(w, "CONTAINER ID\tIMAGE\tCOMMAND\tCREATED\tSTATUS\tPORTS\tNAMES")
	for _, c := range found.Items {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", short(c.ID, whole), c.Image, quoted(c.Command, whole), ago(c.Created), c.Status, ports(c.Ports), names(c.Names))
	}
	return w.Flush()
}

// short cuts an id to the twelve digits that people read.
func short(id string, whole bool) string {
	if whole {
		return id
	}
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(len(id), 12)]
}

func quoted(text string, whole bool) string {
	const width = 20
	if runes := []rune(text); !whole && len(runes) > width {
		text = string(runes[:width-1]) + "…"
	}
	return strconv.Quote(text)
}

func ago(seconds int64) string {
	return units.HumanDuration(time.Since(time.Unix(seconds, 0))) + " ago"
}

func ports(all []apicontainer.PortSummary) string {
	var texts []string
	for _, p := range all {
		text := fmt.Sprintf("%d/%s", p.PrivatePort, p.Type)
		if p.PublicPort != 0 {
			text = fmt.Sprintf("%s:%d->%s", p.IP, p.PublicPort, text)
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

func names(all []string) string {
	var texts []string
	for _, name := range all {
		texts = append(texts, strings.TrimPrefix(name, "/"))
	}
	return strings.Join(texts, ",")
}

func filtersOf(given []string) (client.Filters, error) {
	filters := make(client.Filters)
	for _, entry := range given {
		key, value, ok := strings.Cut(entry, "=")
		if !ok {
			return nil, fmt.Errorf("invalid filter %q: expected KEY=VALUE", entry)
		}
		filters.Add(key, value)
	}
	return filters, nil
}

func top(ctx context.Context, s *session, f *flags, args []string) error {
	args, err := f.parse(args, 1, -1)
	if err != nil {
		return err
	}
	found, err := s.api.ContainerTop(ctx, args[0], client.ContainerTopOptions{Arguments: args[1:]})
	if err != nil {
		return err
	}
	w := table(s.out)
	fmt.Fprintln(w, strings.Join(found.Titles, "\t"))
	for _, process := range found.Processes {
		fmt.Fprintln(w, strings.Join(process, "\t"))
	}
	return w.Flush()
}
