package api

import (
	"net/http"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/engined/engined/engined/container"
	"github.com/engined/engined/proto/errdefs"
)

func (s *Server) execCreate(w http.ResponseWriter, r *http.Request) error {
	var request apicontainer.ExecCreateRequest
	if err := decodeJSON(w, r, &request); err != nil {
		return err
	}
	if len(request.Cmd) == 0 {
		return errdefs.InvalidArgument.Errorf("No exec command specified")
	}
	if versionOf(r).Before(42) {
		request.ConsoleSize = nil
	}
	id, err := s.Containers.ExecCreate(r.Context(), r.PathValue("id"), request)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, apicontainer.ExecCreateResponse{ID: id})
}

// execStart runs a prepared command. Unless detached, its streams take the
// connection over, so an error after that is no longer a status.
func (s *Server) execStart(w http.ResponseWriter, r *http.Request) error {
	var request apicontainer.ExecStartRequest
	if err := decodeJSON(w, r, &request); err != nil {
		return err
	}
	if request.ConsoleSize != nil && (versionOf(r).Before(42) || !request.Tty) {
		request.ConsoleSize = nil
	}
	options := container.ExecStartOptions{Detach: request.Detach, Tty: request.Tty, ConsoleSize: request.ConsoleSize}
	if err := s.Containers.ExecStart(r.Context(), r.PathValue("id"), options, upgrader(w, r)); err != nil {
		return ofExec{err}
	}
	if request.Detach {
		w.WriteHeader(http.StatusOK)
	}
	return nil
}

func (s *Server) execInspect(w http.ResponseWriter, r *http.Request) error {
	found, err := s.Containers.ExecInspect(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, found)
}

func (s *Server) execResize(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	height, width := q.size("h"), q.size("w")
	if q.err != nil {
		return q.err
	}
	if err := s.Containers.ExecResize(r.Context(), r.PathValue("id"), height, width); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
