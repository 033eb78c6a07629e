package api

import (
	"context"
	"net/http"

	apiregistry "github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/engined/image"
	"github.com/engined/engined/engined/registry"
	"github.com/engined/engined/proto/errdefs"
)

// registries is what the API needs of package registry itself.
type registries interface {
	Login(ctx context.Context, auth registry.Auth) error
}

// authOf reads the credentials of a pull. As in dockerd a header that cannot be
// read is nobody's, and the registry has the say.
func authOf(r *http.Request) registry.Auth {
	auth, err := registry.DecodeAuth(r.Header.Get(apiregistry.AuthHeader))
	if err != nil {
		return registry.Auth{}
	}
	return auth
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) error {
	var auth registry.Auth
	if err := decodeJSON(w, r, &auth); err != nil {
		return err
	}
	if err := s.Registries.Login(r.Context(), auth); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, apiregistry.AuthResponse{Status: "Login Succeeded"})
}

// imagePull is imageCreate with fromImage.
func (s *Server) imagePull(w http.ResponseWriter, r *http.Request, q *query, platform *ocispec.Platform) error {
	stream := progressTo(w)
	return stream.end(s.Images.Pull(r.Context(), image.PullRequest{
		Image: q.text("fromImage"), Tag: q.text("tag"), Platform: platform, Auth: authOf(r),
	}, stream.report))
}

func (s *Server) imageSearch(http.ResponseWriter, *http.Request) error {
	return errdefs.NotImplemented.Errorf("searching registries is not implemented by engined")
}

func (s *Server) imagePush(_ http.ResponseWriter, r *http.Request) error {
	return errdefs.NotImplemented.Errorf("pushing %s: pushing images is not implemented by engined", r.PathValue("name"))
}
