package logfile

import (
	"context"
	"time"
)

// renameLimit is how long a name that should be there is waited for. It is
// absent for the microseconds between two renames of a rotation, and for ever if
// the writer was killed there or somebody has removed the file.
const renameLimit = 100 * time.Millisecond

// renaming waits for the end of a rotation under way.
type renaming struct {
	path  string
	watch *watch
	limit time.Time
}

// wait returns true when it is time to look again, false if that is of no use.
func (r *renaming) wait() bool {
	if r.watch == nil {
		var err error
		if r.watch, err = newWatch(r.path); err != nil {
			return false
		}
		r.limit = time.Now().Add(renameLimit)
		return true // it may have come before the watch
	}
	return r.watch.wait(context.Background(), nil, r.limit) == nil
}

func (r *renaming) close() {
	if r.watch != nil {
		r.watch.close()
	}
}
