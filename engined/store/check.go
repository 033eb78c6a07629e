package store

import (
	"context"
	"database/sql"
	"fmt"
)

// Finding is something wrong that a check found. Nouns have checks of their own.
type Finding struct {
	Subject string // what it is about, as "layer sha256:..."
	Problem string
	Repair  string // what was done about it; "" if nothing was
}

func (f Finding) String() string {
	if f.Repair == "" {
		return f.Subject + ": " + f.Problem
	}
	return f.Subject + ": " + f.Problem + ": " + f.Repair
}

// Findings are those of one check of a noun.
type Findings struct {
	DB     *DB
	Repair bool
	Found  []Finding
}

// Find notes a problem, and when repairing has it mended; mended says how.
func (f *Findings) Find(ctx context.Context, subject, problem, mended string, mend func(tx *sql.Tx) error) error {
	finding := Finding{Subject: subject, Problem: problem}
	if f.Repair {
		if err := f.DB.Update(ctx, mend); err != nil {
			return err
		}
		finding.Repair = mended
	}
	f.Found = append(f.Found, finding)
	return nil
}

// Check looks whether the database itself is whole: its pages and indexes, and
// rows that speak of rows that are not there.
func (db *DB) Check(ctx context.Context) (found []Finding, err error) {
	err = db.View(ctx, func(tx *sql.Tx) error {
		return eachRow(ctx, tx, `PRAGMA integrity_check`, func(rows *sql.Rows) error {
			var said string
			if err := rows.Scan(&said); err != nil {
				return err
			}
			if said != "ok" {
				found = append(found, Finding{Subject: "database", Problem: said})
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("checking the database: %w", err)
	}
	err = db.View(ctx, func(tx *sql.Tx) error {
		return eachRow(ctx, tx, `PRAGMA foreign_key_check`, func(rows *sql.Rows) error {
			var table, parent string
			var row, key sql.NullInt64
			if err := rows.Scan(&table, &row, &parent, &key); err != nil {
				return err
			}
			found = append(found, Finding{Subject: "database", Problem: fmt.Sprintf("row %d of table %s speaks of a row of table %s that is not there", row.Int64, table, parent)})
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("checking the database: %w", err)
	}
	return found, nil
}

func eachRow(ctx context.Context, tx *sql.Tx, query string, do func(*sql.Rows) error) error {
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := do(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
