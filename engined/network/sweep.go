package network

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// sweep takes away released endpoints until ctx ends.
func (s *Service) sweep(ctx context.Context) {
	defer close(s.stopped)
	for {
		s.sweepOnce(ctx)
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
	}
}

func (s *Service) wakeSweeper() {
	select {
	case s.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// sweepOnce handles the endpoints that are released now. One that fails keeps
// its row, and with it its address, for the next time.
func (s *Service) sweepOnce(ctx context.Context) {
	ends, err := s.endpoints(ctx, `WHERE released = 1`)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Error("reading released endpoints", "error", err)
		}
		return
	}
	for _, end := range ends {
		if err := s.sweepEndpoint(ctx, end); err != nil && ctx.Err() == nil {
			s.log.Error("removing endpoint", "container", end.container, "link", end.link, "error", err)
		}
	}
}

func (s *Service) sweepEndpoint(ctx context.Context, end endpoint) error {
	err := errors.Join(removeLink(end.link), removeNamespace(filepath.Join(s.sandboxDir(), end.sandbox)))
	if err != nil {
		return err
	}
	return s.db.Update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM endpoints WHERE id = ?`, end.id)
		return err
	})
}

// Reconcile releases what belongs to no running container: endpoints by their
// rows, and namespaces that no row knows (an earlier database's).
func (s *Service) Reconcile(ctx context.Context, running map[string]bool) error {
	ends, err := s.endpoints(ctx, "")
	if err != nil {
		return err
	}
	known := make(map[string]bool)
	for _, end := range ends {
		known[end.sandbox] = true
		if !running[end.container] {
			if err := s.Release(ctx, end.container); err != nil {
				return err
			}
		}
	}
	files, err := os.ReadDir(s.sandboxDir())
	if err != nil {
		return err
	}
	for _, file := range files {
		if !known[file.Name()] {
			err = errors.Join(err, removeNamespace(filepath.Join(s.sandboxDir(), file.Name())))
		}
	}
	s.wakeSweeper()
	return err
}

// endpoints reads rows; where is a clause of this package's own.
func (s *Service) endpoints(ctx context.Context, where string, args ...any) (ends []endpoint, err error) {
	err = s.db.View(ctx, func(tx *sql.Tx) (err error) {
		ends, err = readEndpoints(ctx, tx, where, args...)
		return err
	})
	return ends, err
}

func readEndpoints(ctx context.Context, tx *sql.Tx, where string, args ...any) (ends []endpoint, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT id, container, network, name, address, mac, link, sandbox, created, released FROM endpoints `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		end, err := scanEndpoint(rows)
		if err != nil {
			return nil, err
		}
		ends = append(ends, end)
	}
	return ends, rows.Err()
}

func scanEndpoint(rows *sql.Rows) (e endpoint, err error) {
	var address, mac string
	var created int64
	if err = rows.Scan(&e.id, &e.container, &e.network, &e.name, &address, &mac, &e.link, &e.sandbox, &created, &e.released); err != nil {
		return e, err
	}
	e.created = time.Unix(0, created)
	if e.address, err = netip.ParseAddr(address); err != nil {
		return e, err
	}
	e.mac, err = net.ParseMAC(mac)
	return e, err
}
