package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/engined/engined/proto/errdefs"
)

// networks is what the API needs of package network.
type networks interface {
	List() []apinetwork.Network
	Inspect(ctx context.Context, ref string) (apinetwork.Inspect, error)
	Remove(ref string) error
}

func (s *Server) networkList(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	wanted := q.filters()
	if q.err != nil {
		return q.err
	}
	if err := checkFilters(wanted, networkFilters); err != nil {
		return err
	}
	list := slices.DeleteFunc(s.Networks.List(), func(n apinetwork.Network) bool { return !networkMatches(n, wanted) })
	return writeJSON(w, http.StatusOK, list)
}

// networkFilters says how each filter's value is compared with a network.
var networkFilters = map[string]func(n apinetwork.Network, value string) bool{
	"name":     func(n apinetwork.Network, value string) bool { return strings.Contains(n.Name, value) },
	"id":       func(n apinetwork.Network, value string) bool { return strings.HasPrefix(n.ID, value) },
	"driver":   func(n apinetwork.Network, value string) bool { return n.Driver == value },
	"scope":    func(n apinetwork.Network, value string) bool { return n.Scope == value },
	"type":     func(_ apinetwork.Network, value string) bool { return value == "builtin" },
	"dangling": func(_ apinetwork.Network, value string) bool { return value == "false" || value == "0" },
	"label": func(n apinetwork.Network, value string) bool {
		key, wanted, compare := strings.Cut(value, "=")
		got, labelled := n.Labels[key]
		return labelled && (!compare || got == wanted)
	},
}

// networkMatches: every filter must agree with one of its values.
func networkMatches(n apinetwork.Network, wanted map[string][]string) bool {
	for key, values := range wanted {
		agrees := func(value string) bool { return networkFilters[key](n, value) }
		if !slices.ContainsFunc(values, agrees) {
			return false
		}
	}
	return true
}

// checkFilters refuses filters that known does not have.
func checkFilters[V any](wanted map[string][]string, known map[string]V) error {
	for key := range wanted {
		if _, found := known[key]; !found {
			return errdefs.InvalidArgument.Errorf("invalid filter '%s'", key)
		}
	}
	return nil
}

func (s *Server) networkInspect(w http.ResponseWriter, r *http.Request) error {
	inspected, err := s.Networks.Inspect(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, inspected)
}

func (s *Server) networkRemove(w http.ResponseWriter, r *http.Request) error {
	if err := s.Networks.Remove(r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// networkPrune has nothing to do while there are only the three predefined
// networks, which are never pruned.
func (s *Server) networkPrune(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	wanted := q.filters()
	if q.err != nil {
		return q.err
	}
	if err := checkFilters(wanted, map[string]bool{"until": true, "label": true, "label!": true}); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, apinetwork.PruneReport{})
}

func (s *Server) networkCreate(http.ResponseWriter, *http.Request) error {
	return errdefs.NotImplemented.Errorf("user-defined networks are not implemented: use bridge, host or none")
}

func (s *Server) networkConnect(http.ResponseWriter, *http.Request) error {
	return errdefs.NotImplemented.Errorf("connecting a container to a further network is not implemented")
}

func (s *Server) networkDisconnect(http.ResponseWriter, *http.Request) error {
	return errdefs.NotImplemented.Errorf("disconnecting a container from its network is not implemented")
}
