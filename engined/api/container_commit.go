package api

import (
	"net/http"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/engined/engined/engined/container"
	"github.com/engined/engined/proto/errdefs"
)

// containerCommit makes an image of a container. The body is the configuration
// to begin with; clients send null for the container's own.
func (s *Server) containerCommit(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	if q.err != nil {
		return q.err
	}
	ref := q.text("container")
	if ref == "" {
		return errdefs.InvalidArgument.Errorf("parameter container: expected a name or an id")
	}
	var config *apicontainer.Config
	if err := decodeJSON(w, r, &config); err != nil {
		return err
	}
	id, err := s.Containers.Commit(r.Context(), ref, container.CommitRequest{
		Repository: q.text("repo"), Tag: q.text("tag"), Author: q.text("author"), Comment: q.text("comment"),
		Pause: q.flagOr("pause", true), Changes: q.values["changes"], Config: config,
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, apicontainer.CommitResponse{ID: id.String()})
}

// containerExport sends a container's root as a tar. Errors are answers until
// the first byte is sent; later ones cut the connection.
func (s *Server) containerExport(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Type", tarType)
	return s.Containers.Export(r.Context(), r.PathValue("id"), w)
}
