package logfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// open takes hold of the files from the newest back to the oldest that is
// wanted.
func (r *Reader) open() error {
	newest, err := r.lockCurrent()
	if err != nil || newest == nil {
		return err
	}
	missing := r.opts.Tail // entries still to be found
	for one := newest; one != nil; {
		r.files = append([]*part{one}, r.files...)
		if r.opts.Tail >= 0 {
			found, err := r.limit(one, missing)
			if err != nil {
				return err
			}
			if missing -= found; missing == 0 {
				return nil
			}
		}
		if r.old(one) {
			return nil
		}
		if one, err = r.predecessor(one); err != nil {
			return err
		}
	}
	return nil
}

// old says that everything before this file is older than what is wanted.
func (r *Reader) old(p *part) bool {
	if r.opts.Since.IsZero() {
		return false
	}
	st, err := p.file.Stat()
	return err == nil && st.ModTime().Before(r.opts.Since)
}

// limit makes p begin with its last n entries and returns how many it has of
// these.
func (r *Reader) limit(p *part, n int) (found int, err error) {
	if !p.compressed {
		st, err := p.file.Stat()
		if err != nil {
			return 0, err
		}
		if n == 0 {
			p.offset = st.Size()
			return 0, nil
		}
		offset, found, err := r.format.tail(p.file, st.Size(), n)
		if err != nil {
			return 0, fmt.Errorf("looking for the last entries of %s: %w", p.file.Name(), err)
		}
		if found >= 0 {
			p.offset = offset
			return found, nil
		}
	}
	all := r.count(p)
	p.skip = max(all-n, 0)
	return all - p.skip, nil
}

// count reads p once and counts its entries.
func (r *Reader) count(p *part) (entries int) {
	source, err := p.open()
	if err != nil {
		return 0
	}
	buf, held := make([]byte, bufferSize), 0
	for {
		n, err := source.Read(buf[held:])
		held += n
		whole, number, _ := r.format.boundary(buf[:held])
		entries += number
		held = copy(buf, buf[whole:held])
		if err != nil || held == len(buf) {
			return entries
		}
	}
}

// begin opens the first file of a log that had none.
func (r *Reader) begin() (moved bool, err error) {
	first, err := r.lockCurrent()
	if err != nil || first == nil {
		return false, err
	}
	// It may have been rotated already: begin with the oldest.
	r.files = []*part{first}
	for one := first; ; {
		if one, err = r.predecessor(one); err != nil || one == nil {
			return true, err
		}
		r.files = append([]*part{one}, r.files...)
	}
}

// lockCurrent takes hold of the current file; nil if there is none.
func (r *Reader) lockCurrent() (*part, error) {
	gap := renaming{path: r.path}
	defer gap.close()
	for {
		p, err := lockShared(r.path, false)
		if err != nil {
			return nil, err
		}
		if p == nil {
			if r.last() == 0 || !gap.wait() {
				return nil, nil
			}
			continue
		}
		same, err := p.isAt(r.path)
		if same {
			return p, nil
		}
		p.close()
		if err != nil {
			return nil, err
		}
	}
}

// lockShared opens and locks a file; nil if it is not there.
func lockShared(name string, compressed bool) (*part, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	for {
		// The writer's own lock is held for a rename at most.
		err := unix.Flock(int(file.Fd()), unix.LOCK_SH)
		if err == nil {
			return &part{file: file, compressed: compressed}, nil
		}
		if !errors.Is(err, unix.EINTR) {
			file.Close()
			return nil, fmt.Errorf("locking %s: %w", name, err)
		}
	}
}

// isAt reports whether the file still has this name.
func (p *part) isAt(name string) (bool, error) {
	mine, err := p.file.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(mine, there), err
}

// number returns the file's number now, 0 for the current one, -1 if it has
// been removed. Looking upwards cannot miss it: its number only grows, by one
// at a time.
func (r *Reader) number(p *part) (int, error) {
	for i, last := 0, 0; i <= last; i++ {
		name := r.path
		if i > 0 {
			name = (&rotated{i, p.compressed}).name(r.path)
		}
		if same, err := p.isAt(name); err != nil || same {
			return i, err
		}
		if i < last {
			continue
		}
		last = max(last, r.last())
	}
	return -1, nil
}

// neighbour takes hold of the file whose number differs by step from p's; nil
// if there is none. It is the right one if p's number is the same afterwards,
// because the writer renames p first if step is -1, and the other one first if
// it is 1.
func (r *Reader) neighbour(p *part, step int) (*part, error) {
	gap := renaming{path: r.path}
	defer gap.close()
	for {
		at, err := r.number(p)
		if err != nil {
			return nil, err
		}
		if at < 0 {
			return r.oldest(step)
		}
		if at+step < 0 {
			return nil, nil
		}
		next, name, err := r.lockNumber(at + step)
		if err != nil {
			return nil, err
		}
		if next == nil {
			if step > 0 && r.last() <= at || !gap.wait() {
				return nil, nil
			}
			continue
		}
		same, err := next.isAt(name)
		if err == nil && same {
			var now int
			if now, err = r.number(p); err == nil && now == at {
				return next, nil
			}
		}
		next.close()
		if err != nil {
			return nil, err
		}
	}
}

// last returns the highest number of a rotated file, 0 if there is none.
func (r *Reader) last() int {
	all, err := listRotated(r.path)
	if err != nil || len(all) == 0 {
		return 0
	}
	return all[len(all)-1].number
}

func (r *Reader) successor(p *part) (*part, error)   { return r.neighbour(p, -1) }
func (r *Reader) predecessor(p *part) (*part, error) { return r.neighbour(p, 1) }

// lockNumber takes hold of the file with this number, plain or compressed.
func (r *Reader) lockNumber(number int) (p *part, name string, err error) {
	if number == 0 {
		p, err = lockShared(r.path, false)
		return p, r.path, err
	}
	for _, compressed := range []bool{false, true} {
		name = (&rotated{number, compressed}).name(r.path)
		if p, err = lockShared(name, compressed); p != nil || err != nil {
			return p, name, err
		}
	}
	return nil, "", nil
}

// oldest is what to go on with when a file was removed under its reader, which
// was more than maxExtra files behind.
func (r *Reader) oldest(step int) (*part, error) {
	if step > 0 {
		return nil, nil
	}
	r.skipped++
	all, err := listRotated(r.path)
	if err != nil {
		return nil, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		p, _, err := r.lockNumber(all[i].number)
		if p != nil || err != nil {
			return p, err
		}
	}
	return r.lockCurrent()
}
