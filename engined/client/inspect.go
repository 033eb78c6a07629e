package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/template"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"
)

func inspect(ctx context.Context, s *session, f *flags, args []string) error {
	var format, kind string
	f.text(&format, "format", "f", "Go `template`")
	f.text(&kind, "type", "", "`container` or image")
	args, err := f.parse(args, 1, -1)
	if err != nil {
		return err
	}
	var objects []json.RawMessage
	failed := false
	for _, ref := range args {
		object, err := s.find(ctx, ref, kind)
		if err != nil {
			fmt.Fprintf(s.err, "engined: %v\n", err)
			failed = true
			continue
		}
		objects = append(objects, object)
	}
	if err := s.show(objects, format); err != nil {
		return err
	}
	if failed {
		return exit(1)
	}
	return nil
}

// find asks for a container, then for an image, of that name.
func (s *session) find(ctx context.Context, ref, kind string) (json.RawMessage, error) {
	if kind == "" || kind == "container" {
		found, err := s.api.ContainerInspect(ctx, ref, client.ContainerInspectOptions{})
		if err == nil {
			return found.Raw, nil
		}
		if kind != "" || !cerrdefs.IsNotFound(err) {
			return nil, err
		}
	}
	var raw bytes.Buffer
	_, err := s.api.ImageInspect(ctx, ref, client.ImageInspectWithRawResponse(&raw))
	if kind == "" && cerrdefs.IsNotFound(err) {
		return nil, errors.New("no such object: " + ref)
	}
	return raw.Bytes(), err
}

func (s *session) show(objects []json.RawMessage, format string) error {
	if format == "" {
		var indented bytes.Buffer
		all, err := json.Marshal(append([]json.RawMessage{}, objects...))
		if err != nil {
			return err
		}
		if err := json.Indent(&indented, all, "", "    "); err != nil {
			return err
		}
		_, err = fmt.Fprintln(s.out, indented.String())
		return err
	}
	asTemplate, err := template.New("").Option("missingkey=error").Funcs(template.FuncMap{"json": toJSON}).Parse(format)
	if err != nil {
		return fmt.Errorf("--format: %w", err)
	}
	for _, object := range objects {
		// Numbers stay as they were written: ids and sizes are not floats.
		decoder := json.NewDecoder(bytes.NewReader(object))
		decoder.UseNumber()
		var tree any
		if err := decoder.Decode(&tree); err != nil {
			return err
		}
		if err := asTemplate.Execute(s.out, tree); err != nil {
			return fmt.Errorf("--format: %w", err)
		}
		fmt.Fprintln(s.out)
	}
	return nil
}

func toJSON(value any) (string, error) {
	text, err := json.Marshal(value)
	return string(text), err
}
