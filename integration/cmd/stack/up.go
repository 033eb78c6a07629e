package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/engined/engined/integration/leftovers"
	"github.com/engined/engined/integration/rootfs"
)

const startTimeout = 30 * time.Second

// first is the container that up runs; what runs under that name is replaced.
const first = "first"

const firstScript = `echo "hello from $HOSTNAME, $(busybox | head -n 1)"; exec sleep 1000000`

func up(p places) error {
	pid, err := begin(p)
	if err != nil {
		return err
	}
	if err := ensureImage(p); err != nil {
		return err
	}
	if err := runFirst(p); err != nil {
		return err
	}
	fmt.Println("\nprocesses:")
	if err := tree(os.Stdout, pid, p); err != nil {
		return err
	}
	howToGoOn(p)
	return nil
}

// begin returns the pid of the engined that runs here, starting it if need be.
func begin(p places) (int, error) {
	if pid, ok := runningPid(p); ok {
		fmt.Printf("engined already runs here, pid %d\n", pid)
		return pid, nil
	}
	config := filepath.Join(p.dir, "daemon.json")
	if err := os.WriteFile(config, []byte("{}\n"), 0o600); err != nil {
		return 0, err
	}
	log, err := os.OpenFile(p.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd := exec.Command(p.engined(), "-H", p.host(), "--data-root", p.data(), "--exec-root", p.execRoot,
		"--pidfile", p.pidfile(), "--config-file", config, "--bridge", p.bridge, "--bip", p.subnet)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives this command
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := awaitReady(p, ended); err != nil {
		return 0, err
	}
	fmt.Printf("engined started, pid %d, log %s\n", cmd.Process.Pid, p.log())
	return cmd.Process.Pid, nil
}

// runningPid reads the pid file and believes it only if that process is ours.
func runningPid(p places) (int, bool) {
	text, err := os.ReadFile(p.pidfile())
	if err != nil {
		return 0, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, false
	}
	proc, err := leftovers.ReadProc(pid)
	return pid, err == nil && proc.State != 'Z' && strings.Contains(proc.Command, p.pidfile())
}

// awaitReady waits until engined accepts, then for its first answer, which it
// gives when it is ready.
func awaitReady(p places, ended <-chan error) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		conn, err := net.Dial("unix", p.socket)
		if err == nil {
			_ = conn.Close()
			_, err = output(p, "version")
			return err
		}
		select {
		case err := <-ended:
			log, _ := os.ReadFile(p.log())
			return fmt.Errorf("engined ended at its start: %w\n%s", err, log)
		case <-ctx.Done():
			return fmt.Errorf("engined does not listen after %s: %w", startTimeout, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// ensureImage imports Debian's busybox through the API if it is not there.
func ensureImage(p places) error {
	images, err := output(p, "images")
	if err != nil || strings.Contains(images, "busybox") {
		return err
	}
	var image bytes.Buffer
	if err := rootfs.Tar(&image); err != nil {
		return err
	}
	fmt.Printf("importing busybox:latest from %s\n", rootfs.Busybox)
	args := []string{"import"}
	for _, change := range rootfs.Changes {
		args = append(args, "--change", change)
	}
	return client(p, &image, io.Discard, append(args, "-", "busybox:latest")...)
}

func runFirst(p places) error {
	_, _ = output(p, "rm", "-f", first) // of an earlier run; there may be none
	if _, err := output(p, "run", "-d", "--name", first, "busybox", "sh", "-c", firstScript); err != nil {
		return err
	}
	// The container's first line, as soon as it is written.
	reader, writer := io.Pipe()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	follow := command(ctx, p, "logs", "-f", first)
	follow.Stdout = writer
	if err := follow.Start(); err != nil {
		return err
	}
	go func() { _ = writer.CloseWithError(follow.Wait()) }()
	line := make([]byte, 4096)
	n, err := reader.Read(line)
	cancel()
	_ = reader.Close()
	if n == 0 {
		return fmt.Errorf("the container printed nothing: %w", err)
	}
	fmt.Printf("\n$ engined run -d --name %s busybox sh -c '...'\n%s", first, line[:n])
	return nil
}

func command(ctx context.Context, p places, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.engined(), args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+p.host())
	return cmd
}

// client runs engined's own command line.
func client(p places, stdin io.Reader, stdout io.Writer, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	cmd := command(ctx, p, args...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, &stderr
	if err := cmd.Run(); err != nil {
		return errors.Join(fmt.Errorf("engined %s: %w", args[0], err), errors.New(strings.TrimSpace(stderr.String())))
	}
	return nil
}

func output(p places, args ...string) (string, error) {
	var stdout bytes.Buffer
	err := client(p, nil, &stdout, args...)
	return stdout.String(), err
}

func howToGoOn(p places) {
	fmt.Printf(`
It runs. Go on with

  export DOCKER_HOST=%s
  bin/engined run --rm -it busybox      # or any docker client
  bin/engined exec -it %s sh
  make stop                             # ends it and removes ./.run
`, p.host(), first)
}
