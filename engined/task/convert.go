package task

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/engined/engined/proto/shim"
	supervisor "github.com/engined/engined/proto/supervisor/v1"
)

func versionText(v *supervisor.GetServerVersionResponse) string {
	return fmt.Sprintf("%d.%d.%d", v.GetMajor(), v.GetMinor(), v.GetPatch())
}

func fromTimestamp(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func fromContainer(c *supervisor.Container) Container {
	container := Container{ID: c.GetId(), Status: c.GetStatus(), Socket: c.GetShimSocket()}
	for _, p := range c.GetProcesses() {
		container.Processes = append(container.Processes, Process{
			ID:      processName(p.GetPid()),
			Pid:     int(p.GetSystemPid()),
			Started: fromTimestamp(p.GetStartedAt()),
			Exit:    fromExit(p.GetExit()),
		})
	}
	for _, pid := range c.GetPids() {
		container.Pids = append(container.Pids, int(pid))
	}
	return container
}

// processName gives the first process its name where a caller of
// containerd 0.2's habits left it out.
func processName(name string) string {
	if name == "" {
		return shim.Init
	}
	return name
}

func fromExit(e *supervisor.Exit) *Exit {
	if e == nil {
		return nil
	}
	return &Exit{
		Status:    int(e.GetStatus()),
		Signal:    int(e.GetSignal()),
		Time:      fromTimestamp(e.GetExitedAt()),
		OOMKilled: e.GetOomKilled(),
		Reason:    e.GetReason(),
	}
}

func fromState(s *supervisor.StateResponse) Snapshot {
	snapshot := Snapshot{Seq: s.GetSeq()}
	for _, c := range s.GetContainers() {
		snapshot.Containers = append(snapshot.Containers, fromContainer(c))
	}
	return snapshot
}

func fromEvent(e *supervisor.Event) Event {
	event := Event{
		Seq:     e.GetSeq(),
		Type:    e.GetType(),
		ID:      e.GetId(),
		Process: processName(e.GetPid()),
		Time:    fromTimestamp(e.GetTimestamp()),
		Exit:    fromExit(e.GetExit()),
	}
	if event.Type == EventExit && event.Exit == nil {
		event.Exit = &Exit{Status: int(e.GetStatus()), Time: event.Time}
	}
	if event.Type == EventSnapshot {
		snapshot := fromState(e.GetState())
		snapshot.Seq = event.Seq
		event.Snapshot = &snapshot
	}
	return event
}
