package container

import (
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/engined/engined/proto/errdefs"
)

// index finds containers by id, name and prefix.
type index struct {
	mu     sync.RWMutex // guards what follows; never held over input or output
	byID   map[string]*container
	byName map[string]string // id; a name is taken before its container is there
	ids    []string          // sorted
}

func newIndex() *index {
	return &index{byID: make(map[string]*container), byName: make(map[string]string)}
}

// reserve takes a name for a container to come.
func (x *index) reserve(name, id string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if holder, taken := x.byName[name]; taken && holder != id {
		return errdefs.Conflict.Coded(errdefs.NameTaken, name,
			"Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.",
			"/"+name, holder)
	}
	x.byName[name] = id
	return nil
}

// unreserve gives a name back.
func (x *index) unreserve(name, id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.byName[name] == id {
		delete(x.byName, name)
	}
}

// add shows a container whose name is reserved.
func (x *index) add(c *container) {
	x.mu.Lock()
	defer x.mu.Unlock()
	at, _ := slices.BinarySearch(x.ids, c.id)
	x.ids = slices.Insert(x.ids, at, c.id)
	x.byID[c.id] = c
}

func (x *index) remove(c *container) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if at, found := slices.BinarySearch(x.ids, c.id); found {
		x.ids = slices.Delete(x.ids, at, at+1)
	}
	delete(x.byID, c.id)
	if name := c.record.Load().Name; x.byName[name] == c.id {
		delete(x.byName, name)
	}
}

// all returns the containers, the newest first.
func (x *index) all() []*container {
	x.mu.RLock()
	list := make([]*container, 0, len(x.byID))
	for _, c := range x.byID {
		list = append(list, c)
	}
	x.mu.RUnlock()
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i].record.Load(), list[j].record.Load()
		if !a.Created.Equal(b.Created) {
			return a.Created.After(b.Created)
		}
		return a.ID < b.ID
	})
	return list
}

// find resolves a reference: an id, a name, or a prefix of an id that is
// nobody else's, in this order.
func (x *index) find(ref string) (*container, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if c, found := x.byID[ref]; found {
		return c, nil
	}
	if c, found := x.byID[x.byName[strings.TrimPrefix(ref, "/")]]; found {
		return c, nil
	}
	at, _ := slices.BinarySearch(x.ids, ref)
	if ref == "" || at == len(x.ids) || !strings.HasPrefix(x.ids[at], ref) {
		return nil, errdefs.NotFound.Coded(errdefs.NoSuchContainer, ref, "No such container: %s", ref)
	}
	if at+1 < len(x.ids) && strings.HasPrefix(x.ids[at+1], ref) {
		return nil, errdefs.InvalidArgument.Coded(errdefs.AmbiguousPrefix, ref, "multiple IDs found with provided prefix: %s", ref)
	}
	return x.byID[x.ids[at]], nil
}
