package api

import (
	"context"
	"net/http"
	"strconv"

	apiregistry "github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/engined/image"
	"github.com/engined/engined/engined/registry"
)

// registries is what the API needs of package registry itself.
type registries interface {
	Login(ctx context.Context, auth registry.Auth) error
	Search(ctx context.Context, req registry.SearchRequest) ([]apiregistry.SearchResult, error)
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

func (s *Server) imageSearch(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	req := registry.SearchRequest{Term: q.text("term"), Auth: authOf(r)}
	if limit := q.integer("limit"); limit != nil {
		req.Limit = *limit
	}
	automated := searchFilters(q, &req)
	if q.err != nil {
		return q.err
	}
	found, err := s.Registries.Search(r.Context(), req)
	if err != nil {
		return err
	}
	if automated { // there are none any more
		found = []apiregistry.SearchResult{}
	}
	return writeJSON(w, http.StatusOK, found)
}

// searchFilters reads the filters of a search; automated is is-automated=true.
func searchFilters(q *query, req *registry.SearchRequest) (automated bool) {
	for name, values := range q.filters() {
		for _, value := range values {
			on, err := strconv.ParseBool(value)
			stars, notNumber := strconv.Atoi(value)
			switch {
			case name == "is-official" && err == nil:
				req.Official = &on
			case name == "is-automated" && err == nil:
				automated = automated || on
			case name == "stars" && notNumber == nil:
				req.Stars = max(req.Stars, stars)
			default:
				q.fail("filters", name+"="+value, "is-official or is-automated (true or false) or stars (a number)")
			}
		}
	}
	return automated
}

func (s *Server) imagePush(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	platforms := q.platforms()
	if q.err != nil {
		return q.err
	}
	auth, err := s.pushAuth(w, r)
	if err != nil {
		return err
	}
	stream := progressTo(w)
	return stream.end(s.Images.Push(r.Context(), image.PushRequest{Image: r.PathValue("name"), Tag: q.text("tag"), Auth: auth, Platforms: platforms}, stream.report))
}

// pushAuth reads the credentials of a push: from the header, or as old clients
// send them, from the body.
func (s *Server) pushAuth(w http.ResponseWriter, r *http.Request) (auth registry.Auth, err error) {
	if r.Header.Get(apiregistry.AuthHeader) != "" {
		return authOf(r), nil
	}
	if r.ContentLength != 0 && r.Header.Get("Content-Type") != "" {
		err = decodeJSON(w, r, &auth)
	}
	return auth, err
}

// distribution tells what a registry has under a name.
func (s *Server) distribution(w http.ResponseWriter, r *http.Request) error {
	inspected, err := s.Images.Distribution(r.Context(), r.PathValue("name"), authOf(r))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, inspected)
}
