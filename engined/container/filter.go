package container

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"

	apicontainer "github.com/moby/moby/api/types/container"
	apimount "github.com/moby/moby/api/types/mount"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/engined/engined/proto/errdefs"
)

// filter is what a client wants listed: of every key at least one value (of
// labels every one) has to fit.
type filter struct {
	given map[string][]string
	tests []func(*Record) bool
}

// newFilter reads filters; what they refer to is looked up once.
func (s *Service) newFilter(ctx context.Context, given map[string][]string) (*filter, error) {
	f := &filter{given: given}
	for key, values := range given {
		test, err := s.filterTest(ctx, key, values)
		if err != nil {
			return nil, err
		}
		f.tests = append(f.tests, test)
	}
	return f, nil
}

func (f *filter) matches(r *Record) bool {
	for _, test := range f.tests {
		if !test(r) {
			return false
		}
	}
	return true
}

// wantsStopped says whether a filter asks for what does not run, which makes
// --all superfluous.
func (f *filter) wantsStopped() bool { return len(f.given["status"]) > 0 || len(f.given["exited"]) > 0 }

func (s *Service) filterTest(ctx context.Context, key string, values []string) (func(*Record) bool, error) {
	anyOf := func(fits func(r *Record, value string) bool) func(*Record) bool {
		return func(r *Record) bool {
			return slices.ContainsFunc(values, func(value string) bool { return fits(r, value) })
		}
	}
	switch key {
	case "id":
		return anyOf(func(r *Record, v string) bool { return strings.HasPrefix(r.ID, v) }), nil
	case "name":
		return nameTest(values)
	case "label":
		return func(r *Record) bool { return labelsFit(r, values) }, nil
	case "status":
		return statusTest(values, anyOf)
	case "exited":
		return exitedTest(values)
	case "ancestor":
		return s.ancestorTest(ctx, values)
	case "before", "since":
		return s.ageTest(key, values)
	case "volume":
		return anyOf(func(r *Record, v string) bool {
			return slices.ContainsFunc(r.Mounts, func(m Mount) bool {
				return m.Destination == v || m.Type == apimount.TypeVolume && m.Name == v || m.Type == apimount.TypeBind && m.Source == v
			})
		}), nil
	case "network":
		return anyOf(func(r *Record, v string) bool { return networkFits(r, v) }), nil
	case "health":
		return anyOf(func(_ *Record, v string) bool { return v == string(apicontainer.NoHealthcheck) }), nil
	case "expose":
		return anyOf(func(r *Record, v string) bool {
			port, err := apinetwork.ParsePort(v)
			_, has := r.Config.ExposedPorts[port]
			return err == nil && has
		}), nil
	case "publish":
		return func(*Record) bool { return false }, nil // no port is published
	case "is-task":
		return anyOf(func(_ *Record, v string) bool { return v == "false" || v == "0" }), nil
	}
	return nil, errdefs.InvalidArgument.Errorf("invalid filter '%s'", key)
}

// nameTest: names are matched as regular expressions, with or without slash.
func nameTest(values []string) (func(*Record) bool, error) {
	var patterns []*regexp.Regexp
	for _, value := range values {
		pattern, err := regexp.Compile(value)
		if err != nil {
			return nil, errdefs.InvalidArgument.Errorf("invalid filter 'name=%s': %w", value, err)
		}
		patterns = append(patterns, pattern)
	}
	return func(r *Record) bool {
		return slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool {
			return p.MatchString(r.Name) || p.MatchString("/"+r.Name)
		})
	}, nil
}

func labelsFit(r *Record, values []string) bool {
	for _, value := range values {
		name, want, exact := strings.Cut(value, "=")
		have, has := r.Config.Labels[name]
		if !has || exact && have != want {
			return false
		}
	}
	return true
}

func statusTest(values []string, anyOf func(func(*Record, string) bool) func(*Record) bool) (func(*Record) bool, error) {
	for _, value := range values {
		if err := apicontainer.ValidateContainerState(Phase(value)); err != nil {
			return nil, errdefs.InvalidArgument.Errorf("invalid filter 'status=%s': %w", value, err)
		}
	}
	return anyOf(func(r *Record, v string) bool { return r.Phase() == Phase(v) }), nil
}

func exitedTest(values []string) (func(*Record) bool, error) {
	var codes []int
	for _, value := range values {
		code, err := strconv.Atoi(value)
		if err != nil {
			return nil, errdefs.InvalidArgument.Errorf("invalid filter 'exited=%s': expected a number", value)
		}
		codes = append(codes, code)
	}
	return func(r *Record) bool { return r.Phase() == exited && slices.Contains(codes, r.exitCode()) }, nil
}

// ancestorTest: an image that is not here has no descendants.
func (s *Service) ancestorTest(ctx context.Context, values []string) (func(*Record) bool, error) {
	var ids []string
	for _, value := range values {
		image, err := s.Images.Resolve(ctx, value)
		if errdefs.KindOf(err) == errdefs.NotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		ids = append(ids, image.ID.String())
	}
	return func(r *Record) bool { return slices.Contains(ids, r.Image.String()) }, nil
}

func (s *Service) ageTest(key string, values []string) (func(*Record) bool, error) {
	var marks []*Record
	for _, value := range values {
		c, err := s.index.find(value)
		if err != nil {
			return nil, err
		}
		marks = append(marks, c.record.Load())
	}
	return func(r *Record) bool {
		return slices.ContainsFunc(marks, func(mark *Record) bool {
			if key == "before" {
				return r.Created.Before(mark.Created)
			}
			return r.Created.After(mark.Created)
		})
	}, nil
}

func networkFits(r *Record, value string) bool {
	for name, settings := range r.networks() {
		if name == value || settings != nil && settings.NetworkID != "" && strings.HasPrefix(settings.NetworkID, value) {
			return true
		}
	}
	return false
}
