package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/engined/engined/proto/errdefs"
)

// refusal is an answer that says no, with its header.
type refusal struct {
	cause  error
	text   string // "": the cause's
	header http.Header
}

func (r *refusal) Error() string {
	if r.text != "" {
		return r.text
	}
	return r.cause.Error()
}

func (r *refusal) Unwrap() error { return r.cause }

// classify gives the registry's answer a kind, and dockerd's words, which
// scripts look for. They are made here, because the registry's own text and the
// reference both are part of them.
func classify(err error, ref reference.Named) error {
	var refused *transport.Error
	if !errors.As(err, &refused) {
		return err
	}
	code, text := diagnosis(err, refused)
	switch code {
	case transport.ManifestUnknownErrorCode:
		return errdefs.NotFound.Errorf("manifest for %s not found: %w", reference.FamiliarString(ref), &worded{text, err})
	case transport.NameUnknownErrorCode:
		return errdefs.NotFound.Errorf("repository %s not found: %w", reference.FamiliarName(ref), &worded{text, err})
	case transport.DeniedErrorCode:
		return errdefs.NotFound.Errorf("pull access denied for %s, repository does not exist or may require 'docker login': %w", reference.FamiliarName(ref), &worded{text, err})
	case transport.TooManyRequestsErrorCode:
		return errdefs.Unavailable.Errorf("%w", &worded{text, err})
	case "":
		if refused.StatusCode == http.StatusNotFound {
			return errdefs.NotFound.Errorf("manifest for %s not found: %w", reference.FamiliarString(ref), err)
		}
		return err
	}
	return &worded{text, err}
}

// worded is an error in other words.
type worded struct {
	text string
	err  error
}

func (w *worded) Error() string { return w.text }
func (w *worded) Unwrap() error { return w.err }

// diagnosis is the registry's first complaint: its code, and the words that
// docker's own client finds for it. "" if it is not in the protocol's form.
func diagnosis(err error, refused *transport.Error) (transport.ErrorCode, string) {
	var full *refusal
	if errors.As(err, &full) {
		if full.text != "" {
			return "", ""
		}
		// RFC 6750 section 3.1: the token does not allow it.
		if strings.Contains(full.header.Get("WWW-Authenticate"), `error="insufficient_scope"`) {
			return transport.DeniedErrorCode, "denied: requested access to the resource is denied"
		}
	}
	if len(refused.Errors) == 0 {
		return "", ""
	}
	first := refused.Errors[0]
	text := strings.ToLower(strings.ReplaceAll(string(first.Code), "_", " "))
	if first.Message != "" {
		text += ": " + first.Message
	}
	return first.Code, text
}

// asksBasic is true if the registry wants a user name and password.
func asksBasic(header http.Header) bool {
	return strings.HasPrefix(strings.ToLower(header.Get("WWW-Authenticate")), "basic")
}

// title writes a method as Go's client does in its errors.
func title(method string) string {
	if method == "" {
		return "Get"
	}
	return method[:1] + strings.ToLower(method[1:])
}

// statusOf is the status of a registry's refusal, 0 for other errors.
func statusOf(err error) int {
	var refused *transport.Error
	if errors.As(err, &refused) {
		return refused.StatusCode
	}
	return 0
}

// mayPass is true for what a later attempt can be without: a registry that is
// overloaded, a connection that was cut. A registry that is not there is not.
func mayPass(err error) bool {
	if errors.Is(err, context.Canceled) {
		return false
	}
	switch statusOf(err) {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	// net.ErrClosed: the transport sees that the registry hangs up and closes the
	// connection while we still send.
	var timeout net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, errStalled) || errors.Is(err, errMirror) || errors.As(err, &timeout) && timeout.Timeout()
}

// maxRetryAfter bounds what a registry can make us wait.
const maxRetryAfter = time.Minute

// retryAfter is how long the registry wants to be left alone.
func retryAfter(err error) time.Duration {
	var full *refusal
	if !errors.As(err, &full) {
		return 0
	}
	seconds, err := strconv.Atoi(full.header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(min(seconds, 3600))*time.Second, maxRetryAfter)
}

// errMirror says that the next attempt goes to somebody else.
var errMirror = errors.New("it does not have the blob")

var errStalled error = errdefs.Unavailable.Errorf("the registry has sent nothing for %s", stallTimeout)

// notSupported refuses a media type.
func notSupported(what, mediaType string) error {
	return errdefs.NotImplemented.Errorf("%s: media type %q is not supported", what, mediaType)
}

func wrongDigest(what string, have, want fmt.Stringer) error {
	return errdefs.DataLoss.Errorf("%s verification failed: the registry sent content with digest %s, expected %s", what, have, want)
}
