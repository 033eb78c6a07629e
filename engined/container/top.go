package container

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/engined/engined/proto/errdefs"
)

// defaultPs is what Docker asks ps(1) for.
const defaultPs = "-ef"

// Top lists a container's processes as ps(1) on the host does. Without a ps
// there is the default list alone.
func (s *Service) Top(ctx context.Context, ref, psArgs string) (apicontainer.TopResponse, error) {
	c, err := s.index.find(ref)
	if err != nil {
		return apicontainer.TopResponse{}, err
	}
	r := c.record.Load()
	if err := allow(listing, r); err != nil {
		return apicontainer.TopResponse{}, err
	}
	if psArgs == "" {
		psArgs = defaultPs
	}
	state, err := s.Tasks.State(ctx, c.id)
	if err != nil {
		return apicontainer.TopResponse{}, err
	}
	table, err := runPs(ctx, psArgs)
	if errors.Is(err, exec.ErrNotFound) && psArgs == defaultPs {
		return s.told(r, listProcesses(state.Pids)), nil
	}
	if err != nil {
		return apicontainer.TopResponse{}, err
	}
	top, err := pick(table, state.Pids)
	if err != nil {
		return top, err
	}
	return s.told(r, top), nil
}

func (s *Service) told(r *Record, top apicontainer.TopResponse) apicontainer.TopResponse {
	s.tell(r, apievents.ActionTop, nil)
	return top
}

func runPs(ctx context.Context, args string) ([]byte, error) {
	ps := exec.CommandContext(ctx, "ps", strings.Fields(args)...)
	var complaint bytes.Buffer
	ps.Stderr = &complaint
	table, err := ps.Output()
	if err != nil && complaint.Len() > 0 {
		return nil, errdefs.InvalidArgument.Errorf("ps: %s", firstLine(complaint.String()))
	}
	return table, err
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// pick takes the lines of the container's processes out of ps's table. The
// last column may have spaces.
func pick(table []byte, pids []int) (apicontainer.TopResponse, error) {
	lines := strings.Split(strings.TrimRight(string(table), "\n"), "\n")
	titles := strings.Fields(lines[0])
	column := slices.Index(titles, "PID")
	if column < 0 {
		return apicontainer.TopResponse{}, errdefs.InvalidArgument.Errorf("couldn't find PID field in ps output")
	}
	top := apicontainer.TopResponse{Titles: titles, Processes: [][]string{}}
	for _, line := range lines[1:] {
		fields := splitFields(line, len(titles))
		if len(fields) <= column {
			continue
		}
		pid, err := strconv.Atoi(fields[column])
		if err == nil && slices.Contains(pids, pid) {
			top.Processes = append(top.Processes, fields)
		}
	}
	return top, nil
}

// splitFields splits at spaces into at most n fields.
func splitFields(line string, n int) (fields []string) {
	rest := strings.TrimLeft(line, " ")
	for rest != "" {
		if len(fields) == n-1 {
			return append(fields, rest)
		}
		field, after, _ := strings.Cut(rest, " ")
		fields = append(fields, field)
		rest = strings.TrimLeft(after, " ")
	}
	return fields
}
