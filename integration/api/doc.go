// Package api asks the Engine API by hand, as no client would: requests that
// are wrong, old or odd. Each goes to engined and to Debian's dockerd; status
// and message have to agree, or the request says why not.
package api
