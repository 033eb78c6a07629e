package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	units "github.com/docker/go-units"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
)

func images(ctx context.Context, s *session, f *flags, args []string) error {
	var o client.ImageListOptions
	var quiet, whole bool
	f.truth(&o.All, "all", "a", "also intermediate ones")
	f.truth(&quiet, "quiet", "q", "ids only")
	f.truth(&whole, "no-trunc", "", "do not cut anything off")
	args, err := f.parse(args, 0, 1)
	if err != nil {
		return err
	}
	if len(args) == 1 {
		o.Filters = make(client.Filters).Add("reference", args[0])
	}
	found, err := s.api.ImageList(ctx, o)
	if err != nil {
		return err
	}
	w := table(s.out)
	if !quiet {
		fmt.Fprintln(w, "REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE")
	}
	for _, image := range found.Items {
		if quiet {
			fmt.Fprintln(w, short(image.ID, whole))
			continue
		}
		for _, reference := range references(image) {
			repository, tag := splitReference(reference)
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", repository, tag, short(image.ID, whole), ago(image.Created), size(image.Size))
		}
	}
	return w.Flush()
}

// references are an image's names; one without any still has a row.
func references(image apiimage.Summary) []string {
	if len(image.RepoTags) == 0 {
		return []string{"<none>:<none>"}
	}
	return image.RepoTags
}

func splitReference(reference string) (repository, tag string) {
	colon := strings.LastIndexByte(reference, ':')
	if colon < 0 || colon < strings.LastIndexByte(reference, '/') {
		return reference, "<none>"
	}
	return reference[:colon], reference[colon+1:]
}

func importImage(ctx context.Context, s *session, f *flags, args []string) error {
	var o client.ImageImportOptions
	f.list(&o.Changes, "change", "c", "Dockerfile `instruction` to apply")
	f.text(&o.Message, "message", "m", "commit `message`")
	args, err := f.parse(args, 1, 2)
	if err != nil {
		return err
	}
	var reference string
	if len(args) == 2 {
		reference = args[1]
	}
	source := s.in
	if args[0] != "-" {
		file, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer file.Close()
		source = file
	}
	answer, err := s.api.ImageImport(ctx, client.ImageImportSource{Source: source, SourceName: "-"}, reference, o)
	if err != nil {
		return err
	}
	defer answer.Close()
	return progress(answer, s.out)
}

func load(ctx context.Context, s *session, f *flags, args []string) error {
	var input string
	f.text(&input, "input", "i", "`file` to read instead of standard input")
	if _, err := f.parse(args, 0, 0); err != nil {
		return err
	}
	source := s.in
	if input != "" {
		file, err := os.Open(input)
		if err != nil {
			return err
		}
		defer file.Close()
		source = file
	}
	answer, err := s.api.ImageLoad(ctx, source, client.ImageLoadWithQuiet(true))
	if err != nil {
		return err
	}
	defer answer.Close()
	return progress(answer, s.out)
}

// progress prints the messages of a JSON stream, whose last one may be an error.
func progress(stream io.Reader, out io.Writer) error {
	decoder := json.NewDecoder(stream)
	for {
		var message struct {
			Stream, Status, ID, Error string
			ErrorDetail               struct{ Message string }
			ProgressDetail            struct{ Current int64 } // of a bar
		}
		err := decoder.Decode(&message)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading the answer: %w", err)
		case message.ErrorDetail.Message != "":
			return errors.New(message.ErrorDetail.Message)
		case message.Error != "":
			return errors.New(message.Error)
		case message.Stream != "":
			fmt.Fprint(out, message.Stream)
		case message.ProgressDetail.Current != 0: // only a terminal could show it
		case message.Status != "" && message.ID != "":
			fmt.Fprintf(out, "%s: %s\n", message.ID, message.Status)
		case message.Status != "":
			fmt.Fprintln(out, message.Status)
		}
	}
}

func removeImage(ctx context.Context, s *session, f *flags, args []string) error {
	o := client.ImageRemoveOptions{PruneChildren: true}
	f.truth(&o.Force, "force", "f", "also if it has more names")
	args, err := f.parse(args, 1, -1)
	if err != nil {
		return err
	}
	failed := false
	for _, ref := range args {
		removed, err := s.api.ImageRemove(ctx, ref, o)
		if err != nil {
			fmt.Fprintf(s.err, "engined: %v\n", err)
			failed = true
		}
		s.printRemoved(removed.Items)
	}
	if failed {
		return exit(1)
	}
	return nil
}

func (s *session) printRemoved(all []apiimage.DeleteResponse) {
	for _, item := range all {
		if item.Untagged != "" {
			fmt.Fprintln(s.out, "Untagged:", item.Untagged)
		}
		if item.Deleted != "" {
			fmt.Fprintln(s.out, "Deleted:", item.Deleted)
		}
	}
}

func pruneImages(ctx context.Context, s *session, f *flags, args []string) error {
	var all, force bool
	var filters []string
	f.truth(&all, "all", "a", "all that no container uses, not only those without a name")
	f.truth(&force, "force", "f", "do not ask")
	f.list(&filters, "filter", "", "`KEY=VALUE`, as until=24h")
	if _, err := f.parse(args, 0, 0); err != nil {
		return err
	}
	chosen, err := filtersOf(filters)
	if err != nil {
		return err
	}
	warning := "This will remove all images without a name."
	if all {
		chosen.Add("dangling", "false")
		warning = "This will remove all images that no container uses."
	}
	if !force && !s.agreed(warning) {
		return exit(1)
	}
	pruned, err := s.api.ImagePrune(ctx, client.ImagePruneOptions{Filters: chosen})
	if err != nil {
		return err
	}
	s.printRemoved(pruned.Report.ImagesDeleted)
	fmt.Fprintf(s.out, "Total reclaimed space: %s\n", size(int64(pruned.Report.SpaceReclaimed)))
	return nil
}

// agreed asks whoever types.
func (s *session) agreed(warning string) bool {
	fmt.Fprintf(s.out, "WARNING! %s\nAre you sure you want to continue? [y/N] ", warning)
	answer, _ := bufio.NewReader(s.in).ReadString('\n') // an end without an answer is a no
	return strings.EqualFold(strings.TrimSpace(answer), "y")
}

func size(bytes int64) string { return units.HumanSizeWithPrecision(float64(bytes), 3) }
