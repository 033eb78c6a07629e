package leaks

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/engined/engined/integration/harness"
	"github.com/engined/engined/integration/leftovers"
)

const (
	containers = 200
	together   = 8
	settle     = 20 * time.Second
)

// census is what a daemon holds.
type census struct{ goroutines, descriptors int }

func TestTwoHundredContainersLeaveNothing(t *testing.T) {
	stack := harness.New(t, harness.Options{Bridge: true})
	c := stack.Client(t)
	many(t, c, containers/2) // pools (of the database, of connections) are as full as they get
	idle, err := leftovers.Look()
	if err != nil {
		t.Fatal(err)
	}
	before := count(t, stack)
	many(t, c, containers)
	leak := leftovers.Since(idle)
	known := map[leftovers.Item]bool{}
	for _, item := range idle {
		known[item] = true
	}
	err = leftovers.Await(time.Now().Add(settle), func(item leftovers.Item) bool {
		return !known[item] && (leak(item) || item.Mentions(stack.Dir))
	})
	if err != nil {
		t.Errorf("after %d containers: %v", containers, err)
	}
	await(t, stack, before)
}

func count(t *testing.T, stack *harness.Stack) map[*harness.Daemon]census {
	t.Helper()
	counts := map[*harness.Daemon]census{}
	for _, daemon := range []*harness.Daemon{stack.Engined, stack.Supervisor} {
		goroutines, _ := daemon.Goroutines(t)
		counts[daemon] = census{goroutines, daemon.Descriptors(t)}
	}
	return counts
}

// await waits until both daemons hold no more than before.
func await(t *testing.T, stack *harness.Stack, before map[*harness.Daemon]census) {
	t.Helper()
	for end := time.Now().Add(settle); ; time.Sleep(200 * time.Millisecond) {
		late := time.Now().After(end)
		more := false
		for daemon, now := range count(t, stack) {
			was := before[daemon]
			if now.goroutines <= was.goroutines && now.descriptors <= was.descriptors {
				continue
			}
			more = true
			if late {
				_, dump := daemon.Goroutines(t)
				t.Errorf("%s: %d goroutines and %d descriptors, before %d and %d\n%s", daemon.Name,
					now.goroutines, now.descriptors, was.goroutines, was.descriptors, dump)
			}
		}
		if !more || late {
			return
		}
	}
}

// many runs n containers, some at a time: half removed by the engine, half by
// request; with and without a network.
func many(t *testing.T, c *client.Client, n int) {
	t.Helper()
	turns := make(chan int)
	var workers sync.WaitGroup
	failed := make(chan error, n)
	for range together {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for i := range turns {
				if err := one(c, i); err != nil {
					failed <- fmt.Errorf("container %d: %w", i, err)
				}
			}
		}()
	}
	for i := range n {
		turns <- i
	}
	close(turns)
	workers.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
}

func one(c *client.Client, i int) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	network := []apicontainer.NetworkMode{"none", "bridge", "host"}[i%3]
	created, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{
		Config:     &apicontainer.Config{Image: harness.Image, Cmd: []string{"sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i%5)}},
		HostConfig: &apicontainer.HostConfig{AutoRemove: i%2 == 0, NetworkMode: network},
	})
	if err != nil {
		return err
	}
	waiting := c.ContainerWait(ctx, created.ID, client.ContainerWaitOptions{Condition: condition(i)})
	if _, err := c.ContainerStart(ctx, created.ID, client.ContainerStartOptions{}); err != nil {
		return err
	}
	select {
	case answer := <-waiting.Result:
		if answer.StatusCode != int64(i%5) {
			return fmt.Errorf("status %d", answer.StatusCode)
		}
	case err := <-waiting.Error:
		return err
	}
	if i%2 == 0 {
		return nil
	}
	_, err = c.ContainerRemove(ctx, created.ID, client.ContainerRemoveOptions{})
	return err
}

func condition(i int) apicontainer.WaitCondition {
	if i%2 == 0 {
		return apicontainer.WaitConditionRemoved
	}
	return apicontainer.WaitConditionNextExit
}
