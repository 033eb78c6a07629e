package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/moby/moby/client"
)

// What comes and goes as a tar.

func export(ctx context.Context, s *session, f *flags, args []string) error {
	var output string
	f.text(&output, "output", "o", "`file` to write instead of standard output")
	args, err := f.parse(args, 1, 1)
	if err != nil {
		return err
	}
	return s.toFile(output, func() (io.ReadCloser, error) {
		return s.api.ContainerExport(ctx, args[0], client.ContainerExportOptions{})
	})
}

func save(ctx context.Context, s *session, f *flags, args []string) error {
	var output, platform string
	f.text(&output, "output", "o", "`file` to write instead of standard output")
	f.text(&platform, "platform", "", "`os[/arch[/variant]]` that the images must have")
	args, err := f.parse(args, 1, -1)
	if err != nil {
		return err
	}
	var options []client.ImageSaveOption
	if platform != "" {
		options = append(options, client.ImageSaveWithPlatforms(platforms(platform)...))
	}
	return s.toFile(output, func() (io.ReadCloser, error) { return s.api.ImageSave(ctx, args, options...) })
}

// toFile writes an answer to a file, which appears when it is whole, or to
// standard output unless that is a terminal.
func (s *session) toFile(path string, ask func() (io.ReadCloser, error)) (err error) {
	if path == "" {
		if _, isTerminal := terminal(s.out); isTerminal {
			return errors.New("cowardly refusing to save to a terminal: use the -o flag or redirect")
		}
		return copyAnswer(s.out, ask)
	}
	if there, err := os.Stat(path); err == nil && !there.Mode().IsRegular() { // a fifo, say
		return overwrite(path, ask)
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("making the output file: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	if err := errors.Join(copyAnswer(file, ask), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

func overwrite(path string, ask func() (io.ReadCloser, error)) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(copyAnswer(file, ask), file.Close())
}

func copyAnswer(to io.Writer, ask func() (io.ReadCloser, error)) error {
	answer, err := ask()
	if err != nil {
		return err
	}
	defer answer.Close()
	if _, err := io.Copy(to, answer); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}
