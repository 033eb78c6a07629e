// Package api is engined's HTTP face: the Docker Engine API from 1.24 to the
// newest of moby/api. It turns requests into calls of the nouns (container,
// image, network, events, system) and their results and errors into what
// Docker's clients expect; it decides nothing else.
//
// Where to start: routes.go is the one table of what is served. A request
// passes through [Gate] (waits until engined is ready), then server.go's
// chain, in this order:
//
//	recover      a panic is a 500 and a stack in the log
//	version      /v1.N/ is parsed, checked against the limits and cut off the path
//	headers      Server, Api-Version, Ostype, Docker-Experimental
//	log          debug: Calling GET /v1.41/containers/json, with the client's name
//	route        the handler's error becomes a status and a JSON body (errors.go)
//
// Handlers are methods of [Server] in the file of their noun. They return an
// error or write an answer, never both; [answer] knows whether anything has
// been written.
//
// Invariants:
//   - Docker's wording of an error is made in errors.go alone, from the error's
//     code and subject; text is never matched.
//   - What differs between API versions is in version.go alone (decoding) and
//     legacy.go (encoding): a handler asks it, never compares versions itself.
//   - A streaming handler (marked in the table) sees its context end when the
//     daemon begins to stop; others get the time to finish.
//   - Waiters are registered before the headers are sent: `docker run` starts
//     the container as soon as it has them.
//
// Absent on purpose: swarm (503, in dockerd's words), build, plugins, registry
// login and everything else that the table names 501; authorization plugins;
// HTTP/2; debug endpoints.
package api
