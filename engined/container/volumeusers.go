package container

import "sync"

// creations are the records of containers that are being made: they use their
// volumes before the index has them.
type creations struct {
	mu      sync.Mutex // guards what follows
	records map[string]*Record
}

// begin adds a record. After it no volume that the record names goes away; the
// caller ends it when the index has the container, or nobody will.
func (b *creations) begin(r *Record) (end func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records[r.ID] = r
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.records, r.ID)
	}
}

// unlessShared runs do unless a container other than id uses a volume. No other
// begins to until do has returned.
func (s *Service) unlessShared(volume, id string, do func() error) error {
	s.creations.mu.Lock()
	defer s.creations.mu.Unlock()
	for _, r := range s.creations.records {
		if r.ID != id && r.uses(volume) {
			return nil
		}
	}
	for _, c := range s.index.all() {
		if c.id != id && c.record.Load().uses(volume) {
			return nil
		}
	}
	return do()
}

func (r *Record) uses(volume string) bool {
	for _, m := range r.Mounts {
		if m.Driver == localDriver && m.Name == volume {
			return true
		}
	}
	return false
}
