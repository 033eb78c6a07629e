package container

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/engined/engined/engined/store"
)

var schema = []string{
	`CREATE TABLE containers (
		id       TEXT PRIMARY KEY,
		name     TEXT NOT NULL UNIQUE,
		document TEXT NOT NULL -- Record as JSON
	) STRICT`,
}

// rows is the table of records.
type rows struct{ db *store.DB }

// save inserts or replaces a record.
func (t rows) save(ctx context.Context, r *Record) error {
	document, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encoding container %s: %w", r.ID, err)
	}
	err = t.db.Update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO containers (id, name, document) VALUES (?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET name = excluded.name, document = excluded.document`,
			r.ID, r.Name, string(document))
		return err
	})
	if err != nil {
		return fmt.Errorf("writing container %s: %w", r.ID, err)
	}
	return nil
}

func (t rows) remove(ctx context.Context, id string) error {
	err := t.db.Update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM containers WHERE id = ?`, id)
		return err
	})
	if err != nil {
		return fmt.Errorf("removing container %s from the database: %w", id, err)
	}
	return nil
}

// load reads all records. One that cannot be read is reported with its id and
// does not hide the others.
func (t rows) load(ctx context.Context, bad func(id string, err error)) (records []*Record, err error) {
	err = t.db.View(ctx, func(tx *sql.Tx) error {
		found, err := tx.QueryContext(ctx, `SELECT id, document FROM containers`)
		if err != nil {
			return err
		}
		defer found.Close()
		for found.Next() {
			var id, document string
			if err := found.Scan(&id, &document); err != nil {
				return err
			}
			var r Record
			if err := json.Unmarshal([]byte(document), &r); err != nil {
				bad(id, err)
				continue
			}
			records = append(records, &r)
		}
		return found.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("reading containers: %w", err)
	}
	return records, nil
}
