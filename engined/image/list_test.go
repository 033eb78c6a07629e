package image

import (
	"database/sql"
	"fmt"
	"reflect"
	"testing"
)

func TestListsReadOnlyWhatChanged(t *testing.T) {
	f := newFixture(t)
	f.mustImport(t, "one", "1")
	before, err := f.all(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := f.all(t.Context()); err != nil || again != before {
		t.Errorf("read again, though nothing changed (%v)", err)
	}
	if err := f.Tag(t.Context(), "one", "two", ""); err != nil {
		t.Fatal(err)
	}
	list, err := f.List(t.Context(), ListOptions{})
	if err != nil || len(list) != 1 || !reflect.DeepEqual(list[0].RepoTags, []string{"one:latest", "two:latest"}) {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := f.Remove(t.Context(), "one", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	list, err = f.List(t.Context(), ListOptions{})
	if err != nil || len(list) != 1 || !reflect.DeepEqual(list[0].RepoTags, []string{"two:latest"}) {
		t.Errorf("%+v, %v", list, err)
	}
}

func BenchmarkListOfThousand(b *testing.B) {
	f := newFixture(b)
	for i := range 1000 {
		f.mustImport(b, fmt.Sprintf("image-%d", i), fmt.Sprint(i))
	}
	list := func(b *testing.B) {
		if list, err := f.List(b.Context(), ListOptions{}); err != nil || len(list) != 1000 {
			b.Fatal(len(list), err)
		}
	}
	b.Run("again", func(b *testing.B) {
		for b.Loop() {
			list(b)
		}
	})
	b.Run("after-a-change", func(b *testing.B) {
		for b.Loop() {
			if err := f.db.Update(b.Context(), func(*sql.Tx) error { return nil }); err != nil {
				b.Fatal(err)
			}
			list(b)
		}
	})
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			if _, err := Open(b.Context(), f.db, f.layers, f.log, f.root); err != nil {
				b.Fatal(err)
			}
		}
	})
}
