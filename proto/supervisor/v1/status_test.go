package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/engined/engined/proto/errdefs"
)

func TestEveryKindSurvivesTheStatus(t *testing.T) {
	for kind := range statusCodes {
		original := fmt.Errorf("starting: %w", kind.Coded(errdefs.SpecInvalid, "process.cwd", "no cwd"))
		got := FromStatus(ToStatus(original))
		if errdefs.KindOf(got) != kind {
			t.Errorf("kind %q came back as %q", kind, errdefs.KindOf(got))
		}
		if code, subject := errdefs.CodeAndSubject(got); code != errdefs.SpecInvalid || subject != "process.cwd" {
			t.Errorf("kind %q: code %q, subject %q", kind, code, subject)
		}
		if got.Error() != "starting: no cwd" {
			t.Errorf("kind %q: text %q", kind, got)
		}
	}
}

func TestForeignStatusesAreClassifiedByCode(t *testing.T) {
	for code, kind := range kinds {
		if got := errdefs.KindOf(FromStatus(status.Error(code, "x"))); got != kind {
			t.Errorf("%v: kind %q, want %q", code, got, kind)
		}
	}
	if status.Code(ToStatus(context.DeadlineExceeded)) != codes.DeadlineExceeded {
		t.Error("a context's error lost its code")
	}
}

func TestWhatIsNoStatusPasses(t *testing.T) {
	if ToStatus(nil) != nil || FromStatus(nil) != nil {
		t.Error("nil became an error")
	}
	if !errors.Is(FromStatus(io.EOF), io.EOF) {
		t.Error("EOF was changed")
	}
}

func TestStatusTextIsValidAndBounded(t *testing.T) {
	text := status.Convert(ToStatus(errors.New("\xff" + strings.Repeat("x", 1<<20)))).Message()
	if len(text) > maxText+16 || !strings.HasPrefix(text, "\uFFFD") || !strings.HasSuffix(text, "[cut]") {
		t.Errorf("%d bytes, begins %q", len(text), text[:10])
	}
}

func TestDialRefusesWhatIsNoAddress(t *testing.T) {
	for _, address := range []string{"", "/run/x.sock", "unix://relative", "http://x", "tcp://", "unix://"} {
		if _, err := Dial(t.Context(), address); errdefs.KindOf(err) != errdefs.InvalidArgument {
			t.Errorf("%q: %v", address, err)
		}
	}
	if _, err := Dial(t.Context(), "unix://"+t.TempDir()+"/none"); errdefs.KindOf(err) != errdefs.Unavailable {
		t.Errorf("nobody there: %v", err)
	}
}
