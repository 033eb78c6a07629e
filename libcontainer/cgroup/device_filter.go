package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// instruction is an eBPF instruction, struct bpf_insn of linux/bpf.h.
type instruction struct {
	code     uint8
	dst, src uint8
	offset   int16
	imm      int32
}

// Registers of the filter. r1 is the context at entry.
const (
	regResult  = 0
	regContext = 1
	regKind    = 2
	regAccess  = 3
	regMajor   = 4
	regMinor   = 5
	regScratch = 6
)

// kindBits are BPF_DEVCG_DEV_BLOCK and _CHAR.
var kindBits = map[byte]int32{'b': 1, 'c': 2}

// deviceFilter is the policy as a BPF_PROG_TYPE_CGROUP_DEVICE program. Its
// context is struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor }
// with the kind in access_type's lower half and the access in its upper. It
// returns 1 to allow, 0 to refuse.
func (p devicePolicy) deviceFilter() []instruction {
	load := func(dst uint8, offset int16) instruction {
		return instruction{code: unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W, dst: dst, src: regContext, offset: offset}
	}
	program := []instruction{
		load(regKind, 0),
		{code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, dst: regKind, imm: 0xffff},
		load(regAccess, 0),
		{code: unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K, dst: regAccess, imm: 16},
		load(regMajor, 4),
		load(regMinor, 8),
	}
	result := func(allow bool) []instruction {
		one := int32(0)
		if allow {
			one = 1
		}
		return []instruction{
			{code: unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K, dst: regResult, imm: one},
			{code: unix.BPF_JMP | unix.BPF_EXIT},
		}
	}
	for _, e := range p.exceptions {
		program = append(program, e.test(result(!p.allowAll), p.allowAll)...)
	}
	return append(program, result(p.allowAll)...)
}

// test runs then if the access is one that the exception is about, else falls
// through. What is allowed must cover all of the access, what is denied any
// part of it.
func (r deviceRule) test(then []instruction, deny bool) []instruction {
	var block []instruction
	differs := func(register uint8, imm int32) {
		block = append(block, instruction{code: unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_K, dst: register, imm: imm})
	}
	differs(regKind, kindBits[r.kind])
	if r.access != accessAll {
		block = append(block, instruction{code: unix.BPF_ALU | unix.BPF_MOV | unix.BPF_X, dst: regScratch, src: regAccess})
		block = append(block, instruction{code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, dst: regScratch, imm: int32(r.access)})
		if deny {
			block = append(block, instruction{code: unix.BPF_JMP32 | unix.BPF_JEQ | unix.BPF_K, dst: regScratch, imm: 0})
		} else {
			block = append(block, instruction{code: unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_X, dst: regScratch, src: regAccess})
		}
	}
	if r.major != anyNumber {
		differs(regMajor, int32(uint32(r.major)))
	}
	if r.minor != anyNumber {
		differs(regMinor, int32(uint32(r.minor)))
	}
	block = append(block, then...)
	for i := range block {
		if isJump := block[i].code & 0x07; (isJump == unix.BPF_JMP || isJump == unix.BPF_JMP32) && block[i].code&0xf0 != unix.BPF_EXIT {
			block[i].offset = int16(len(block) - i - 1)
		}
	}
	return block
}

// encode lays the program out for bpf(2).
func encode(program []instruction) []byte {
	data := make([]byte, 0, 8*len(program))
	for _, i := range program {
		data = append(data, i.code, i.dst|i.src<<4)
		data = binary.NativeEndian.AppendUint16(data, uint16(i.offset))
		data = binary.NativeEndian.AppendUint32(data, uint32(i.imm))
	}
	return data
}

// attachDeviceFilter loads the policy and attaches it to the cgroup, then
// detaches what was attached before: at no time is there no filter.
func attachDeviceFilter(dir string, policy devicePolicy) error {
	program, err := loadDeviceFilter(policy.deviceFilter())
	if err != nil {
		return fmt.Errorf("loading the device filter: %w", err)
	}
	defer unix.Close(program)
	cgroup, err := open(dir, unix.O_DIRECTORY|unix.O_RDONLY)
	if err != nil {
		return fmt.Errorf("opening cgroup %s: %w", dir, err)
	}
	defer unix.Close(cgroup)
	before, err := attachedFilters(cgroup)
	if err != nil {
		return fmt.Errorf("listing the device filters of %s: %w", dir, err)
	}
	if err := attach(unix.BPF_PROG_ATTACH, cgroup, program, unix.BPF_F_ALLOW_MULTI); err != nil {
		return fmt.Errorf("attaching the device filter to %s: %w", dir, err)
	}
	for _, id := range before {
		if err := detachFilter(cgroup, id); err != nil {
			return fmt.Errorf("detaching the former device filter from %s: %w", dir, err)
		}
	}
	return nil
}

// bpf calls bpf(2) with one of its attribute structs.
func bpf[T any](command int, attributes *T) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(unsafe.Pointer(attributes)), unsafe.Sizeof(*attributes))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR, unix.EAGAIN:
			continue
		}
		return -1, errno
	}
}

// loadDeviceFilter returns a descriptor of the verified program. Kernels before
// 5.11 count its memory against RLIMIT_MEMLOCK and answer EPERM.
func loadDeviceFilter(program []instruction) (int, error) {
	fd, err := loadOnce(program)
	if !errors.Is(err, unix.EPERM) {
		return fd, err
	}
	var old unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &old) != nil {
		return -1, err
	}
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unlimited) != nil {
		return -1, err
	}
	defer unix.Setrlimit(unix.RLIMIT_MEMLOCK, &old) //nolint:errcheck // lowering back to what it was cannot fail
	return loadOnce(program)
}

func loadOnce(program []instruction) (int, error) {
	code := encode(program)
	license := []byte("Apache-2.0\x00")
	attributes := struct {
		kind, count             uint32
		instructions, license   uint64
		logLevel, logSize       uint32
		log                     uint64
		kernelVersion, flags    uint32
		name                    [16]byte
		ifindex, expectedAttach uint32
	}{
		kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(program)),
		instructions: uint64(uintptr(unsafe.Pointer(&code[0]))),
		license:      uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	copy(attributes.name[:], "ocirun_devices")
	fd, err := bpf(unix.BPF_PROG_LOAD, &attributes)
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	return fd, err
}

// attach attaches or detaches a program.
func attach(command, cgroup, program int, flags uint32) error {
	attributes := struct{ target, program, kind, flags uint32 }{
		uint32(cgroup), uint32(program), unix.BPF_CGROUP_DEVICE, flags,
	}
	_, err := bpf(command, &attributes)
	return err
}

// attachedFilters returns the ids of the programs attached to this very cgroup.
func attachedFilters(cgroup int) ([]uint32, error) {
	ids := make([]uint32, 64) // BPF_CGROUP_MAX_PROGS
	attributes := struct {
		target, kind, query, attached uint32
		ids                           uint64
		count, padding                uint32
	}{
		target: uint32(cgroup), kind: unix.BPF_CGROUP_DEVICE,
		ids: uint64(uintptr(unsafe.Pointer(&ids[0]))), count: uint32(len(ids)),
	}
	_, err := bpf(unix.BPF_PROG_QUERY, &attributes)
	runtime.KeepAlive(ids)
	if err != nil {
		return nil, err
	}
	return ids[:attributes.count], nil
}

func detachFilter(cgroup int, id uint32) error {
	attributes := struct{ id, next, flags uint32 }{id: id}
	program, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, &attributes)
	if err != nil {
		return err
	}
	defer unix.Close(program)
	return attach(unix.BPF_PROG_DETACH, cgroup, program, 0)
}
