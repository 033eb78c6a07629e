package layer

import (
	"context"
	"sync"
)

// keys lets one holder at a time own a name. The zero keys is ready.
type keys struct {
	mu   sync.Mutex
	held map[string]*key // guarded by mu
}

type key struct {
	turn    chan struct{} // holds one token while nobody owns the name
	waiters int           // owners and waiters; guarded by keys.mu
}

// lock waits until name is free and returns the function that frees it.
func (k *keys) lock(ctx context.Context, name string) (unlock func(), err error) {
	entry := k.join(name)
	select {
	case <-entry.turn:
		return func() { entry.turn <- struct{}{}; k.leave(name, entry) }, nil
	case <-ctx.Done():
		k.leave(name, entry)
		return nil, context.Cause(ctx)
	}
}

func (k *keys) join(name string) *key {
	k.mu.Lock()
	defer k.mu.Unlock()
	entry := k.held[name]
	if entry == nil {
		entry = &key{turn: make(chan struct{}, 1)}
		entry.turn <- struct{}{}
		if k.held == nil {
			k.held = map[string]*key{}
		}
		k.held[name] = entry
	}
	entry.waiters++
	return entry
}

func (k *keys) leave(name string, entry *key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if entry.waiters--; entry.waiters == 0 {
		delete(k.held, name)
	}
}
