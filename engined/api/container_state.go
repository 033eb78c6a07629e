package api

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/engined/engined/engined/container"
	"github.com/engined/engined/proto/errdefs"
)

func (s *Server) containerStart(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	for _, name := range []string{"checkpoint", "checkpoint-dir"} {
		if q.text(name) != "" { // a start afresh is not what was asked for
			return errdefs.NotImplemented.Errorf("parameter %s: starting from a checkpoint is not implemented", name)
		}
	}
	if q.err != nil {
		return q.err
	}
	if err := checkNoBody(r); err != nil {
		return err
	}
	return noContent(w, s.Containers.Start(r.Context(), r.PathValue("id")))
}

// checkNoBody refuses the host configuration that start took until 1.24. {}
// and null are allowed: clients still send them.
func checkNoBody(r *http.Request) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, 8))
	if err != nil {
		return errdefs.InvalidArgument.Errorf("reading the request's body: %w", err)
	}
	if text := string(body); text != "" && text != "{}" && text != "{}\n" && text != "null" && text != "null\n" {
		return errdefs.InvalidArgument.Errorf("starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	return nil
}

func (s *Server) containerStop(w http.ResponseWriter, r *http.Request) error {
	options, err := stopOptions(r)
	if err != nil {
		return err
	}
	return noContent(w, s.Containers.Stop(r.Context(), r.PathValue("id"), options))
}

func (s *Server) containerRestart(w http.ResponseWriter, r *http.Request) error {
	options, err := stopOptions(r)
	if err != nil {
		return err
	}
	return prefix(noContent(w, s.Containers.Restart(r.Context(), r.PathValue("id"), options)),
		"Cannot restart container %s: ", r.PathValue("id"))
}

func stopOptions(r *http.Request) (container.StopOptions, error) {
	q := queryOf(r)
	options := container.StopOptions{Timeout: q.integer("t")}
	if !versionOf(r).Before(42) {
		options.Signal = q.text("signal")
	}
	return options, q.err
}

func (s *Server) containerKill(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	signal := q.text("signal")
	if q.err != nil {
		return q.err
	}
	id := r.PathValue("id")
	err := s.Containers.Kill(r.Context(), id, signal)
	if errdefs.KindOf(err) == errdefs.InvalidArgument {
		return err // dockerd has parsed the signal before it says what it cannot
	}
	return prefix(noContent(w, err), "Cannot kill container: %s: ", id)
}

func (s *Server) containerPause(w http.ResponseWriter, r *http.Request) error {
	return noContent(w, s.Containers.Pause(r.Context(), r.PathValue("id")))
}

func (s *Server) containerUnpause(w http.ResponseWriter, r *http.Request) error {
	return noContent(w, s.Containers.Unpause(r.Context(), r.PathValue("id")))
}

func (s *Server) containerResize(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	height, width := q.size("h"), q.size("w")
	if q.err != nil {
		return q.err
	}
	if err := s.Containers.Resize(r.Context(), r.PathValue("id"), height, width); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// containerWait sends the headers as soon as the waiter is registered and the
// body when the container ends. `docker run` starts it in between.
func (s *Server) containerWait(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	condition, headersFirst, err := versionOf(r).waitCondition(q.text("condition"))
	if err != nil {
		return err
	}
	if q.err != nil {
		return q.err
	}
	result, err := s.Containers.Wait(r.Context(), r.PathValue("id"), condition)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	if headersFirst {
		w.WriteHeader(http.StatusOK)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return fmt.Errorf("sending the headers: %w", err)
		}
	}
	return writeExit(w, r, result)
}

func writeExit(w http.ResponseWriter, r *http.Request, result <-chan apicontainer.WaitResponse) error {
	select {
	case exit, ok := <-result:
		if !ok {
			return errdefs.Unavailable.Errorf("the wait was given up")
		}
		return json.NewEncoder(w).Encode(exit)
	case <-r.Context().Done():
		return r.Context().Err()
	}
}
