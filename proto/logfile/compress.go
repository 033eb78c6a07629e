package logfile

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
)

// Gzip compresses from into to, which keeps from's time: readers skip files
// that are older than what they look for.
func Gzip(from, to *os.File) error {
	out := gzip.NewWriter(to)
	if _, err := io.Copy(out, from); err != nil {
		return fmt.Errorf("compressing: %w", err)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("compressing: %w", err)
	}
	st, err := from.Stat()
	if err != nil {
		return err
	}
	return os.Chtimes("/proc/self/fd/"+fmt.Sprint(to.Fd()), st.ModTime(), st.ModTime())
}
