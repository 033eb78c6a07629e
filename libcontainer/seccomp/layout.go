package seccomp

import (
	"math"
	"reflect"
	"slices"

	"golang.org/x/sys/unix"
)

// check returns a verdict if all its conditions hold.
type check struct {
	conditions []condition
	verdict    verdict
}

// treatment is what happens to a call: the first check that holds, else
// otherwise.
type treatment struct {
	checks    []check
	otherwise verdict
	wide      bool // of the conditions
}

// block is a run of numbers with one treatment, from first up to the next
// block's first.
type block struct {
	first uint32
	treatment
}

// section is all numbers of one audit architecture, from 0 to 2^32-1.
type section struct {
	audit  uint32
	blocks []block
}

// layOut gives every number of every architecture its treatment.
func layOut(p parsed) []section {
	var sections []section
	for _, a := range p.archs {
		if a.audit == unix.AUDIT_ARCH_X86_64 && len(sections) > 0 {
			continue // x32: x86-64 has laid it out
		}
		sections = append(sections, section{a.audit, merge(p.blocks(a))})
	}
	return sections
}

// blocks cuts the numbers of an audit architecture.
func (p parsed) blocks(a arch) []block {
	if a.audit != unix.AUDIT_ARCH_X86_64 {
		return p.cut(a, 0, math.MaxUint32)
	}
	blocks := p.cut(a, 0, x32Bit-1)
	x32 := slices.IndexFunc(p.archs, func(other arch) bool { return other.audit == a.audit && other.column != a.column })
	switch {
	case x32 >= 0:
		blocks = append(blocks, p.cut(p.archs[x32], x32Bit, math.MaxUint32)...)
	case p.enosys:
		blocks = append(blocks, block{x32Bit, treatment{otherwise: enosys}})
	default: // -1 is what a tracer writes to skip a call
		blocks = append(blocks,
			block{x32Bit, treatment{otherwise: unix.SECCOMP_RET_KILL_THREAD}},
			block{math.MaxUint32, treatment{otherwise: p.otherwise}})
	}
	return blocks
}

// cut returns the blocks of one set of numbers, which lie in [low, high]: one
// for each number that the profile names, and what is between them.
func (p parsed) cut(a arch, low, high uint32) []block {
	matches := p.matches(a, low, high)
	rest := treatment{otherwise: p.otherwise}
	blocks := make([]block, 0, 2*len(matches)+2)
	next := low // the first number that is not in a block yet
	for len(matches) > 0 {
		number, count := matches[0].number, 1
		for count < len(matches) && matches[count].number == number {
			count++
		}
		if number > next {
			blocks = append(blocks, block{next, rest})
		}
		blocks = append(blocks, block{number, p.treat(matches[:count], a.wide)})
		matches, next = matches[count:], number+1
	}
	if p.enosys && next > low && next > 1 { // as runc, not if 0 is the largest
		rest.otherwise = enosys
	}
	return append(blocks, block{next, rest})
}

// treat applies the rules for one number: the first without conditions is all
// that counts.
func (p parsed) treat(matches []match, wide bool) treatment {
	t := treatment{otherwise: p.otherwise, wide: wide}
	for _, m := range matches {
		switch {
		case m.rule.noop:
		case len(m.alternatives) == 0:
			return treatment{otherwise: m.rule.verdict}
		default:
			for _, conditions := range m.alternatives {
				t.checks = append(t.checks, check{conditions, m.rule.verdict})
			}
		}
	}
	if len(t.checks) == 0 {
		t.wide = false
	}
	return t
}

// match is a rule that names a number.
type match struct {
	number       uint32
	rule         *rule
	alternatives [][]condition // the rule's, or the selector's
}

// matches returns all rules' numbers in [low, high], by number, then in the
// profile's order.
func (p parsed) matches(a arch, low, high uint32) []match {
	list := make([]match, 0, len(syscalls()))
	add := func(number int, r *rule, alternatives [][]condition) {
		if n := uint32(number); number >= 0 && n >= low && n <= high {
			list = append(list, match{n, r, alternatives})
		}
	}
	for i := range p.rules {
		r := &p.rules[i]
		for _, name := range r.names {
			number := a.number(name)
			add(number, r, r.alternatives)
			m, ok := i386Multiplexed(number)
			if !ok || a.audit != unix.AUDIT_ARCH_I386 {
				continue
			}
			add(m.direct, r, r.alternatives)
			if len(r.alternatives) == 0 { // a condition would be on memory that a filter cannot read
				add(m.through, r, [][]condition{{{index: 0, op: equal, value: uint64(m.selector)}}})
			}
		}
	}
	return sorted(list)
}

// sorted orders by number, equal ones as they are. It sorts plain numbers, a
// fifth of what slices.SortStableFunc takes.
func sorted(list []match) []match {
	keys := make([]uint64, len(list))
	for i, m := range list {
		keys[i] = uint64(m.number)<<32 | uint64(i)
	}
	slices.Sort(keys)
	ordered := make([]match, len(list))
	for i, key := range keys {
		ordered[i] = list[uint32(key)]
	}
	return ordered
}

// merge joins neighbours with the same treatment.
func merge(blocks []block) []block {
	merged := blocks[:1]
	for _, b := range blocks[1:] {
		if !same(merged[len(merged)-1].treatment, b.treatment) {
			merged = append(merged, b)
		}
	}
	return merged
}

func same(a, b treatment) bool {
	if len(a.checks) == 0 && len(b.checks) == 0 {
		return a.otherwise == b.otherwise
	}
	return reflect.DeepEqual(a, b)
}
