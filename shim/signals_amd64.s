#include "textflag.h"

// The kernel enters with C's registers: DI is the signal's number. sigreturn
// restores all of them, so nothing need be preserved here.
TEXT ·onSignal(SB),NOSPLIT|NOFRAME,$0
	LEAQ	·childNote(SB), SI
	CMPL	DI, $17 // SIGCHLD
	JEQ	note
	LEAQ	·dumpNote(SB), SI
	CMPL	DI, $10 // SIGUSR1
	JEQ	note
	RET
note:
	MOVL	·noteFD(SB), DI
	MOVL	$8, DX
	MOVL	$1, AX // write
	SYSCALL
	RET

// The kernel's return address of a handler, see sigreturn(2).
TEXT ·onReturn(SB),NOSPLIT|NOFRAME,$0
	MOVL	$15, AX // rt_sigreturn
	SYSCALL
	INT	$3

DATA ·onSignalPC(SB)/8, $·onSignal(SB)
GLOBL ·onSignalPC(SB), NOPTR|RODATA, $8
DATA ·onReturnPC(SB)/8, $·onReturn(SB)
GLOBL ·onReturnPC(SB), NOPTR|RODATA, $8
