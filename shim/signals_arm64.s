#include "textflag.h"

// The kernel enters with C's registers: R0 is the signal's number, R30 leads to
// sigreturn, which restores all of them.
TEXT ·onSignal(SB),NOSPLIT|NOFRAME,$0
	MOVD	$·childNote(SB), R1
	CMPW	$17, R0 // SIGCHLD
	BEQ	note
	MOVD	$·dumpNote(SB), R1
	CMPW	$10, R0 // SIGUSR1
	BEQ	note
	RET
note:
	MOVW	·noteFD(SB), R0
	MOVD	$8, R2
	MOVD	$64, R8 // write
	SVC
	RET

TEXT ·onReturn(SB),NOSPLIT|NOFRAME,$0
	MOVD	$139, R8 // rt_sigreturn
	SVC
	BRK

DATA ·onSignalPC(SB)/8, $·onSignal(SB)
GLOBL ·onSignalPC(SB), NOPTR|RODATA, $8
DATA ·onReturnPC(SB)/8, $·onReturn(SB)
GLOBL ·onReturnPC(SB), NOPTR|RODATA, $8
