package api

import (
	"net/http"
	"strings"

	"github.com/engined/engined/proto/errdefs"
)

// route is a row of the table. Paths are without version, which cutVersion has
// taken off. {name...} spans slashes and may stand before a fixed end, which a
// ServeMux has no pattern for: see register.
type route struct {
	method string
	path   string
	handle handler
	since  int  // minor version that brought it, 0: always there
	stream bool // ends when the daemon begins to stop
}

// routes is everything the API serves. What is not here is 404.
var routes = []route{
	{"GET", "/_ping", (*Server).ping, 0, false},
	{"HEAD", "/_ping", (*Server).ping, 0, false},
	{"GET", "/version", (*Server).version, 0, false},
	{"GET", "/info", (*Server).info, 0, false},
	{"GET", "/events", (*Server).events, 0, true},
	{"GET", "/system/df", (*Server).usage, 25, false},
	{"POST", "/auth", (*Server).login, 0, false},

	{"GET", "/containers/json", (*Server).containerList, 0, false},
	{"POST", "/containers/create", (*Server).containerCreate, 0, false},
	{"POST", "/containers/prune", (*Server).containerPrune, 25, false},
	{"GET", "/containers/{id}/json", (*Server).containerInspect, 0, false},
	{"POST", "/containers/{id}/start", (*Server).containerStart, 0, false},
	{"POST", "/containers/{id}/stop", (*Server).containerStop, 0, false},
	{"POST", "/containers/{id}/restart", (*Server).containerRestart, 0, false},
	{"POST", "/containers/{id}/kill", (*Server).containerKill, 0, false},
	{"POST", "/containers/{id}/pause", (*Server).containerPause, 0, false},
	{"POST", "/containers/{id}/unpause", (*Server).containerUnpause, 0, false},
	{"POST", "/containers/{id}/wait", (*Server).containerWait, 0, true},
	{"POST", "/containers/{id}/rename", (*Server).containerRename, 0, false},
	{"POST", "/containers/{id}/resize", (*Server).containerResize, 0, false},
	{"POST", "/containers/{id}/attach", (*Server).containerAttach, 0, true},
	{"GET", "/containers/{id}/logs", (*Server).containerLogs, 0, true},
	{"GET", "/containers/{id}/top", (*Server).containerTop, 0, false},
	{"DELETE", "/containers/{id}", (*Server).containerRemove, 0, false},
	{"POST", "/containers/{id}/update", absent("updating a container"), 0, false},
	{"GET", "/containers/{id}/stats", absent("statistics"), 0, false},
	{"GET", "/containers/{id}/changes", absent("listing a container's changes"), 0, false},
	{"GET", "/containers/{id}/export", (*Server).containerExport, 0, true},
	{"GET", "/containers/{id}/attach/ws", absent("attaching by WebSocket"), 0, false},
	{"HEAD", "/containers/{id}/archive", absent("copying files"), 0, false},
	{"GET", "/containers/{id}/archive", absent("copying files"), 0, false},
	{"PUT", "/containers/{id}/archive", absent("copying files"), 0, false},
	{"GET", "/containers/{id}/checkpoints", absent("checkpoints"), 25, false},
	{"POST", "/containers/{id}/checkpoints", absent("checkpoints"), 25, false},
	{"DELETE", "/containers/{id}/checkpoints/{checkpoint}", absent("checkpoints"), 25, false},
	{"POST", "/commit", (*Server).containerCommit, 0, false},

	{"POST", "/containers/{id}/exec", (*Server).execCreate, 0, false},
	{"POST", "/exec/{id}/start", (*Server).execStart, 0, true},
	{"POST", "/exec/{id}/resize", (*Server).execResize, 0, false},
	{"GET", "/exec/{id}/json", (*Server).execInspect, 0, false},

	{"GET", "/images/json", (*Server).imageList, 0, false},
	{"GET", "/images/search", (*Server).imageSearch, 0, false},
	{"GET", "/images/get", (*Server).imageSave, 0, false},
	{"POST", "/images/create", (*Server).imageCreate, 0, true},
	{"POST", "/images/load", (*Server).imageLoad, 0, false},
	{"POST", "/images/prune", (*Server).imagePrune, 25, false},
	{"GET", "/images/{name...}/json", (*Server).imageInspect, 0, false},
	{"GET", "/images/{name...}/history", (*Server).imageHistory, 0, false},
	{"GET", "/images/{name...}/get", (*Server).imageSave, 0, false},
	{"POST", "/images/{name...}/tag", (*Server).imageTag, 0, false},
	{"POST", "/images/{name...}/push", (*Server).imagePush, 0, true},
	{"DELETE", "/images/{name...}", (*Server).imageRemove, 0, false},

	{"GET", "/distribution/{name...}/json", (*Server).distribution, 30, false},
	{"POST", "/build", absent("building images"), 0, false},
	{"POST", "/build/prune", absent("building images"), 31, false},
	{"POST", "/build/cancel", absent("building images"), 39, false},
	{"POST", "/session", absent("build sessions"), 0, false},
	{"POST", "/grpc", absent("build sessions"), 0, false},

	{"GET", "/networks", (*Server).networkList, 0, false},
	{"POST", "/networks/create", (*Server).networkCreate, 0, false},
	{"POST", "/networks/prune", (*Server).networkPrune, 25, false},
	{"GET", "/networks/{id}", (*Server).networkInspect, 0, false},
	{"DELETE", "/networks/{id}", (*Server).networkRemove, 0, false},
	{"POST", "/networks/{id}/connect", (*Server).networkConnect, 0, false},
	{"POST", "/networks/{id}/disconnect", (*Server).networkDisconnect, 0, false},

	{"GET", "/volumes", absent("volumes"), 0, false},
	{"POST", "/volumes/create", absent("volumes"), 0, false},
	{"POST", "/volumes/prune", absent("volumes"), 25, false},
	{"GET", "/volumes/{name}", absent("volumes"), 0, false},
	{"PUT", "/volumes/{name}", absent("cluster volumes"), 42, false},
	{"DELETE", "/volumes/{name}", absent("volumes"), 0, false},

	{"GET", "/plugins", absent("plugins"), 25, false},
	{"GET", "/plugins/{name...}", absent("plugins"), 25, false},
	{"POST", "/plugins/{name...}", absent("plugins"), 25, false},
	{"DELETE", "/plugins/{name...}", absent("plugins"), 25, false},

	{"GET", "/swarm", swarm, 0, false},
	{"GET", "/swarm/unlockkey", swarm, 0, false},
	{"POST", "/swarm/update", swarm, 0, false},
	{"POST", "/swarm/unlock", swarm, 0, false},
	{"POST", "/swarm/init", absent("swarm mode"), 0, false},
	{"POST", "/swarm/join", absent("swarm mode"), 0, false},
	{"POST", "/swarm/leave", notInSwarm, 0, false},
	{"GET", "/nodes", swarm, 0, false},
	{"GET", "/nodes/{id}", swarm, 0, false},
	{"POST", "/nodes/{id}/update", swarm, 0, false},
	{"DELETE", "/nodes/{id}", swarm, 0, false},
	{"GET", "/services", swarm, 0, false},
	{"GET", "/services/{id}", swarm, 0, false},
	{"GET", "/services/{id}/logs", swarm, 0, false},
	{"POST", "/services/create", swarm, 0, false},
	{"POST", "/services/{id}/update", swarm, 0, false},
	{"DELETE", "/services/{id}", swarm, 0, false},
	{"GET", "/tasks", swarm, 0, false},
	{"GET", "/tasks/{id}", swarm, 0, false},
	{"GET", "/tasks/{id}/logs", swarm, 0, false},
	{"GET", "/secrets", swarm, 25, false},
	{"GET", "/secrets/{id}", swarm, 25, false},
	{"POST", "/secrets/create", swarm, 25, false},
	{"POST", "/secrets/{id}/update", swarm, 25, false},
	{"DELETE", "/secrets/{id}", swarm, 25, false},
	{"GET", "/configs", swarm, 30, false},
	{"GET", "/configs/{id}", swarm, 30, false},
	{"POST", "/configs/create", swarm, 30, false},
	{"POST", "/configs/{id}/update", swarm, 30, false},
	{"DELETE", "/configs/{id}", swarm, 30, false},
}

// absent returns the handler of what this engine does not have.
func absent(what string) handler {
	return func(*Server, http.ResponseWriter, *http.Request) error {
		return errdefs.NotImplemented.Errorf("%s: not supported by engined", what) // docker inspect goes on after "not supported"
	}
}

// swarm answers as a dockerd that is in no swarm does.
func swarm(*Server, http.ResponseWriter, *http.Request) error {
	return errdefs.Unavailable.Errorf(`This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`)
}

func notInSwarm(*Server, http.ResponseWriter, *http.Request) error {
	return errdefs.Unavailable.Errorf("This node is not part of a swarm")
}

// register puts the table into mux. Rows whose {name...} has a fixed end, as
// /images/{name...}/json, become one pattern per method and beginning, and the
// end is matched here.
func (s *Server) register(mux *http.ServeMux, table []route) {
	ends := make(map[string][]ending) // by "METHOD /beginning/"
	fixed := make(map[string]bool)
	for _, row := range table {
		before, after, spans := strings.Cut(row.path, "{name...}")
		if !spans {
			fixed[row.method+" "+row.path] = true
			mux.Handle(row.method+" "+row.path, s.served(row))
			continue
		}
		key := row.method + " " + before
		ends[key] = append(ends[key], ending{after, s.served(row)})
	}
	for key, among := range ends {
		mux.Handle(key+"{name...}", s.byEnd(among))
		if bare := strings.TrimSuffix(key, "/"); !fixed[bare] {
			mux.HandleFunc(bare, s.notFound) // else the mux redirects to a path with a slash
		}
	}
	mux.HandleFunc("/", s.notFound) // also for a method that a path does not have, as dockerd
}

// ending is the fixed end of a path after {name...}, and what it leads to.
type ending struct {
	suffix string
	next   http.Handler
}

// byEnd leads to the handler of the longest ending that leaves a name.
func (s *Server) byEnd(among []ending) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rest := r.PathValue("name")
		best := ending{next: http.HandlerFunc(s.notFound)}
		for _, e := range among {
			name, ends := strings.CutSuffix(rest, e.suffix)
			if ends && name != "" && len(e.suffix) >= len(best.suffix) {
				best = e
			}
		}
		r.SetPathValue("name", strings.TrimSuffix(rest, best.suffix))
		best.next.ServeHTTP(w, r)
	})
}
