package dbus

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// socketPath returns the path of the first unix socket that the address list
// names; that of an abstract one starts with "@".
func socketPath(address string) (string, error) {
	for one := range strings.SplitSeq(address, ";") {
		transport, options, ok := strings.Cut(one, ":")
		if !ok || transport != "unix" {
			continue
		}
		for option := range strings.SplitSeq(options, ",") {
			key, value, _ := strings.Cut(option, "=")
			path, err := unescape(value)
			switch {
			case key != "path" && key != "abstract" || path == "":
				continue
			case err != nil:
				return "", err
			case key == "abstract":
				return "@" + path, nil
			}
			return path, nil
		}
	}
	return "", errdefs.InvalidArgument.Errorf("D-Bus address %q: expected unix:path=PATH or unix:abstract=NAME", address)
}

// unescape undoes %XX, which stands for all but a few characters.
func unescape(text string) (string, error) {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			out.WriteByte(text[i])
			continue
		}
		if i+2 >= len(text) {
			return "", errdefs.InvalidArgument.Errorf("D-Bus address: incomplete escape in %q", text)
		}
		high, low := hexDigit(text[i+1]), hexDigit(text[i+2])
		if high < 0 || low < 0 {
			return "", errdefs.InvalidArgument.Errorf("D-Bus address: expected two hexadecimal digits after %% in %q", text)
		}
		out.WriteByte(byte(high<<4 | low))
		i += 2
	}
	return out.String(), nil
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// connect opens a stream to the socket.
func connect(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	for {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path}) // "@" is its word for abstract, too
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
