package supervisor

import (
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/engined/engined/proto/errdefs"
)

// Domain marks the ErrorInfo details that carry kind, code and subject.
const Domain = "engined"

// maxText bounds a status message: it travels in an HTTP/2 header.
const maxText = 16 << 10

const (
	kindKey    = "kind"
	subjectKey = "subject"
)

// statusCodes maps each kind to its gRPC code. Several kinds share a code; the
// ErrorInfo detail tells them apart.
var statusCodes = map[errdefs.Kind]codes.Code{
	errdefs.Unknown:            codes.Unknown,
	errdefs.InvalidArgument:    codes.InvalidArgument,
	errdefs.Unauthenticated:    codes.Unauthenticated,
	errdefs.PermissionDenied:   codes.PermissionDenied,
	errdefs.NotFound:           codes.NotFound,
	errdefs.AlreadyExists:      codes.AlreadyExists,
	errdefs.Conflict:           codes.Aborted,
	errdefs.FailedPrecondition: codes.FailedPrecondition,
	errdefs.NotModified:        codes.FailedPrecondition,
	errdefs.NotImplemented:     codes.Unimplemented,
	errdefs.ResourceExhausted:  codes.ResourceExhausted,
	errdefs.Unavailable:        codes.Unavailable,
	errdefs.Aborted:            codes.Aborted,
	errdefs.DataLoss:           codes.DataLoss,
	errdefs.Canceled:           codes.Canceled,
	errdefs.DeadlineExceeded:   codes.DeadlineExceeded,
	errdefs.Internal:           codes.Internal,
}

// kinds is the way back for statuses without our detail.
var kinds = map[codes.Code]errdefs.Kind{
	codes.Unknown:            errdefs.Unknown,
	codes.InvalidArgument:    errdefs.InvalidArgument,
	codes.OutOfRange:         errdefs.InvalidArgument,
	codes.Unauthenticated:    errdefs.Unauthenticated,
	codes.PermissionDenied:   errdefs.PermissionDenied,
	codes.NotFound:           errdefs.NotFound,
	codes.AlreadyExists:      errdefs.AlreadyExists,
	codes.FailedPrecondition: errdefs.FailedPrecondition,
	codes.Unimplemented:      errdefs.NotImplemented,
	codes.ResourceExhausted:  errdefs.ResourceExhausted,
	codes.Unavailable:        errdefs.Unavailable,
	codes.Aborted:            errdefs.Aborted,
	codes.DataLoss:           errdefs.DataLoss,
	codes.Canceled:           errdefs.Canceled,
	codes.DeadlineExceeded:   errdefs.DeadlineExceeded,
	codes.Internal:           errdefs.Internal,
}

// ToStatus renders err for the wire. It returns nil for nil.
func ToStatus(err error) error {
	if err == nil {
		return nil
	}
	wire := errdefs.ToWire(err)
	code, known := statusCodes[wire.Kind]
	if !known {
		code = codes.Unknown
	}
	plain := status.New(code, clean(wire.Text))
	detailed, detailErr := plain.WithDetails(&errdetails.ErrorInfo{
		Domain: Domain,
		Reason: clean(string(wire.Code)),
		Metadata: map[string]string{
			kindKey:    clean(string(wire.Kind)),
			subjectKey: clean(wire.Subject),
		},
	})
	if detailErr != nil {
		return plain.Err()
	}
	return detailed.Err()
}

// FromStatus rebuilds the error that ToStatus rendered. It returns nil for nil
// and what is not a status, as io.EOF, unchanged.
func FromStatus(err error) error {
	received, isStatus := status.FromError(err)
	if err == nil || !isStatus {
		return err
	}
	for _, detail := range received.Details() {
		if described, ok := detail.(*errdetails.ErrorInfo); ok && described.Domain == Domain {
			return errdefs.Wire{
				Kind:    errdefs.Kind(described.Metadata[kindKey]),
				Code:    errdefs.Code(described.Reason),
				Subject: described.Metadata[subjectKey],
				Text:    received.Message(),
			}.Err()
		}
	}
	kind, known := kinds[received.Code()]
	if !known {
		kind = errdefs.Unknown
	}
	return kind.Errorf("%s", received.Message())
}

// clean makes text fit for a protobuf string in a header.
func clean(text string) string {
	if len(text) > maxText {
		text = text[:maxText] + " [cut]"
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}
