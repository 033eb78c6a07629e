package seccomp

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data, little endian.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

// assemble writes the sections one after another, each behind a test of the
// architecture. A caller of another one is killed. The program is built from
// its end, so that each jump knows how far it goes.
func assemble(sections []section) []unix.SockFilter {
	b := make(builder, 0, 1024)
	b.add(ret(unix.SECCOMP_RET_KILL_THREAD))
	for _, s := range slices.Backward(sections) {
		end := len(b)
		b.search(s.blocks)
		b.add(load(offsetNumber))
		b.unless(unix.BPF_JEQ, s.audit, len(b)-end)
	}
	b.add(load(offsetArch))
	slices.Reverse(b)
	return b
}

// builder is a program with its last instruction first.
type builder []unix.SockFilter

// add puts instructions, in the order in which they run, before the others.
func (b *builder) add(instructions ...unix.SockFilter) {
	for _, i := range slices.Backward(instructions) {
		*b = append(*b, i)
	}
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func ret(v verdict) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(v)}
}

// jump compares the accumulator with k and skips that many instructions.
func jump(op uint16, k uint32, yes, no int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: uint8(yes), Jf: uint8(no), K: k}
}

// unless skips the next n instructions unless the comparison holds. A
// conditional jump reaches 255 instructions, JA any.
func (b *builder) unless(op uint16, k uint32, n int) {
	if n <= 255 {
		b.add(jump(op, k, 0, n))
		return
	}
	b.add(jump(op, k, 1, 0), unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(n)})
}

// search is a binary search for the block of the number in the accumulator.
func (b *builder) search(blocks []block) {
	if len(blocks) == 1 {
		b.treat(blocks[0].treatment)
		return
	}
	middle := len(blocks) / 2
	b.search(blocks[:middle])
	end := len(*b)
	b.search(blocks[middle:])
	b.unless(unix.BPF_JGE, blocks[middle].first, len(*b)-end)
}

// treat is the checks one after another, then the rest's verdict.
func (b *builder) treat(t treatment) {
	b.add(ret(t.otherwise))
	for _, c := range slices.Backward(t.checks) {
		b.check(c, t.wide)
	}
}

// check returns the verdict or falls through. Six conditions of six
// instructions stay within a jump's reach.
func (b *builder) check(c check, wide bool) {
	end := len(*b)
	b.add(ret(c.verdict))
	for _, condition := range slices.Backward(c.conditions) {
		b.add(condition.code(wide, len(*b)-end)...)
	}
}

// code falls through if the condition holds and skips rest more instructions
// behind its own if not. Of a call with 32-bit arguments only the lower halves
// count.
func (c condition) code(wide bool, rest int) []unix.SockFilter {
	low, high := uint32(c.value), uint32(c.value>>32)
	maskLow, maskHigh := uint32(c.mask), uint32(c.mask>>32)
	loadLow := load(offsetArgs + 8*uint32(c.index))
	loadHigh := load(offsetArgs + 8*uint32(c.index) + 4)
	and := func(mask uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask}
	}
	switch c.op {
	case equal:
		if !wide {
			return []unix.SockFilter{loadLow, jump(unix.BPF_JEQ, low, 0, rest)}
		}
		return []unix.SockFilter{loadHigh, jump(unix.BPF_JEQ, high, 0, rest+2), loadLow, jump(unix.BPF_JEQ, low, 0, rest)}
	case notEqual:
		if !wide {
			return []unix.SockFilter{loadLow, jump(unix.BPF_JEQ, low, rest, 0)}
		}
		return []unix.SockFilter{loadHigh, jump(unix.BPF_JEQ, high, 0, 2), loadLow, jump(unix.BPF_JEQ, low, rest, 0)}
	case maskedEqual:
		if !wide {
			return []unix.SockFilter{loadLow, and(maskLow), jump(unix.BPF_JEQ, low, 0, rest)}
		}
		return []unix.SockFilter{
			loadHigh, and(maskHigh), jump(unix.BPF_JEQ, high, 0, rest+3),
			loadLow, and(maskLow), jump(unix.BPF_JEQ, low, 0, rest),
		}
	}
	op, negated := uint16(unix.BPF_JGE), c.op == less
	if c.op == greater || c.op == lessOrEqual {
		op, negated = unix.BPF_JGT, c.op == lessOrEqual
	}
	yes, no := 0, rest
	if negated {
		yes, no = no, yes
	}
	if !wide {
		return []unix.SockFilter{loadLow, jump(op, low, yes, no)}
	}
	return []unix.SockFilter{
		loadHigh, jump(unix.BPF_JGT, high, yes+3, 0), jump(unix.BPF_JEQ, high, 0, no+2),
		loadLow, jump(op, low, yes, no),
	}
}
