package client

import (
	"context"
	"fmt"
	"strings"

	"github.com/moby/moby/client"
)

// What makes images and names out of what is there.

func commit(ctx context.Context, s *session, f *flags, args []string) error {
	var o client.ContainerCommitOptions
	pauses := true
	f.list(&o.Changes, "change", "c", "Dockerfile `instruction` to apply")
	f.text(&o.Comment, "message", "m", "commit `message`")
	f.text(&o.Author, "author", "a", "`author` of the image")
	f.truth(&pauses, "pause", "p", "freeze the container meanwhile")
	args, err := f.parse(args, 1, 2)
	if err != nil {
		return err
	}
	if o.NoPause = !pauses; len(args) == 2 {
		o.Reference = args[1]
	}
	made, err := s.api.ContainerCommit(ctx, args[0], o)
	if err != nil {
		return err
	}
	fmt.Fprintln(s.out, made.ID)
	return nil
}

func tag(ctx context.Context, s *session, f *flags, args []string) error {
	args, err := f.parse(args, 2, 2)
	if err != nil {
		return err
	}
	_, err = s.api.ImageTag(ctx, client.ImageTagOptions{Source: args[0], Target: args[1]})
	return err
}

func history(ctx context.Context, s *session, f *flags, args []string) error {
	var quiet, whole bool
	f.truth(&quiet, "quiet", "q", "ids only")
	f.truth(&whole, "no-trunc", "", "do not cut anything off")
	args, err := f.parse(args, 1, 1)
	if err != nil {
		return err
	}
	found, err := s.api.ImageHistory(ctx, args[0])
	if err != nil {
		return err
	}
	w := table(s.out)
	if !quiet {
		fmt.Fprintln(w, "IMAGE\tCREATED\tCREATED BY\tSIZE\tCOMMENT")
	}
	for _, step := range found.Items {
		if quiet {
			fmt.Fprintln(w, short(step.ID, whole))
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", short(step.ID, whole), ago(step.Created), cut(step.CreatedBy, whole), size(step.Size), step.Comment)
	}
	return w.Flush()
}

// cut is a command in one line, at most as long as docker shows it.
func cut(command string, whole bool) string {
	const width = 45
	command = strings.ReplaceAll(command, "\t", " ")
	if runes := []rune(command); !whole && len(runes) > width {
		return string(runes[:width-1]) + "…"
	}
	return command
}
