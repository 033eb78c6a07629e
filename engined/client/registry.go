package client

import (
	"context"
	"fmt"
	"io"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func pull(ctx context.Context, s *session, f *flags, args []string) error {
	var o client.ImagePullOptions
	var quiet bool
	var platform string
	f.truth(&o.All, "all-tags", "a", "every tag of the repository")
	f.truth(&quiet, "quiet", "q", "no progress")
	f.text(&platform, "platform", "", "`os[/arch[/variant]]` to choose")
	args, err := f.parse(args, 1, 1)
	if err != nil {
		return err
	}
	o.Platforms = platforms(platform)
	out := s.out
	if quiet {
		out = io.Discard
	}
	return s.pull(ctx, args[0], o, out)
}

// pull knows no credentials: those are in the stock client's files.
func (s *session) pull(ctx context.Context, image string, o client.ImagePullOptions, out io.Writer) error {
	answer, err := s.api.ImagePull(ctx, image, o)
	if err != nil {
		return err
	}
	defer answer.Close()
	return progress(answer, out)
}

func platforms(given string) []ocispec.Platform {
	if given == "" {
		return nil
	}
	parts := append(strings.SplitN(given, "/", 3), "", "")
	return []ocispec.Platform{{OS: parts[0], Architecture: parts[1], Variant: parts[2]}}
}

// pullMissing gets the image for which a container could not be created. It
// returns the reason as it was if the image is here.
func (s *session) pullMissing(ctx context.Context, image string, reason error) error {
	if !cerrdefs.IsNotFound(reason) {
		return reason
	}
	if _, err := s.api.ImageInspect(ctx, image); !cerrdefs.IsNotFound(err) {
		return reason
	}
	fmt.Fprintf(s.err, "Unable to find image '%s' locally\n", image)
	return s.pull(ctx, image, client.ImagePullOptions{}, s.err)
}

func push(ctx context.Context, s *session, f *flags, args []string) error {
	var o client.ImagePushOptions
	f.truth(&o.All, "all-tags", "a", "every tag of the repository")
	args, err := f.parse(args, 1, 1)
	if err != nil {
		return err
	}
	o.RegistryAuth = "e30=" // {}: without a header dockerd looks for credentials in the body
	answer, err := s.api.ImagePush(ctx, args[0], o)
	if err != nil {
		return err
	}
	defer answer.Close()
	return progress(answer, s.out)
}
