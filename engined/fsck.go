package engined

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/engined/engined/engined/container"
	"github.com/engined/engined/engined/events"
	"github.com/engined/engined/engined/image"
	"github.com/engined/engined/engined/layer"
	"github.com/engined/engined/engined/store"
)

// Fsck checks all that a data root holds, which nobody may use meanwhile, and
// prints what is wrong. It opens everything as a start does, which settles what
// an interrupted engined left, and then looks deeper: each layer is read and
// compared with its digest. With repair, what can be mended is, and what cannot
// stays listed as damaged. left is how many problems nothing was done about.
func Fsck(ctx context.Context, config Config, repair bool, out io.Writer) (left int, err error) {
	path := filepath.Join(config.DataRoot, "engined.db")
	if _, err := os.Stat(path); err != nil {
		return 0, fmt.Errorf("%s is no data root of engined's: %w", config.DataRoot, err)
	}
	held, err := take(filepath.Join(config.DataRoot, "engined.lock"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, held.drop()) }()
	db, err := store.Open(ctx, path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	found, err := findings(ctx, db, config, repair)
	for _, f := range found {
		fmt.Fprintln(out, f)
		if f.Repair == "" {
			left++
		}
	}
	if err == nil && len(found) == 0 {
		fmt.Fprintln(out, config.DataRoot+": clean")
	}
	return left, err
}

// findings asks every noun, those that others rely on first.
func findings(ctx context.Context, db *store.DB, config Config, repair bool) (found []store.Finding, err error) {
	if found, err = db.Check(ctx); err != nil {
		return found, err
	}
	quiet := slog.New(slog.DiscardHandler) // what it would say is found again
	layers, err := layer.Open(ctx, db, config.DataRoot, layer.Options{Driver: config.driver(), DriverOptions: config.StorageOptions, Logger: quiet})
	if err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, layers.Close()) }()
	images, err := image.Open(ctx, db, layers, events.New(), config.DataRoot)
	if err != nil {
		return found, err
	}
	for _, check := range []func(context.Context, bool) ([]store.Finding, error){layers.Check, images.Check, container.Checker(db)} {
		more, err := check(ctx, repair)
		found = append(found, more...)
		if err != nil {
			return found, err
		}
	}
	return found, nil
}
