package api

import (
	"context"
	"net/http"

	apisystem "github.com/moby/moby/api/types/system"
)

// daemon is what this package needs of the engine about itself.
type daemon interface {
	Version(ctx context.Context) (apisystem.VersionResponse, error)
	Info(ctx context.Context) (apisystem.Info, error)
}

// ping says OK. HEAD has the same headers and no body.
func (s *Server) ping(w http.ResponseWriter, r *http.Request) error {
	header := w.Header()
	header.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	header.Set("Pragma", "no-cache")
	header.Set("Swarm", "inactive")
	header.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		header.Set("Content-Length", "0")
		return nil
	}
	_, err := w.Write([]byte("OK"))
	return err
}

func (s *Server) version(w http.ResponseWriter, r *http.Request) error {
	version, err := s.System.Version(r.Context())
	if err != nil {
		return err
	}
	version.APIVersion, version.MinAPIVersion = Newest.String(), Oldest.String()
	for _, component := range version.Components {
		if component.Name == "Engine" {
			component.Details["ApiVersion"], component.Details["MinAPIVersion"] = version.APIVersion, version.MinAPIVersion
		}
	}
	return writeJSON(w, http.StatusOK, version)
}

func (s *Server) info(w http.ResponseWriter, r *http.Request) error {
	info, err := s.System.Info(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, versionOf(r).info(info))
}
