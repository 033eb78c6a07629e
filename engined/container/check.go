package container

import (
	"context"

	"github.com/engined/engined/engined/store"
)

// Checker returns the check of the containers in a database that nobody uses. A
// record that cannot be read has no repair: the container is left alone.
func Checker(db *store.DB) func(ctx context.Context, repair bool) ([]store.Finding, error) {
	return func(ctx context.Context, _ bool) (found []store.Finding, err error) {
		if err := db.Migrate(ctx, "container", schema); err != nil {
			return nil, err
		}
		_, err = rows{db}.load(ctx, func(id string, err error) {
			found = append(found, store.Finding{Subject: "container " + id, Problem: "its record cannot be read: " + err.Error()})
		})
		return found, err
	}
}
