#include "textflag.h"

// Called by the C rules: DI is the signal's number, and nothing else has to be
// kept, for the kernel restores all registers.
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	MOVL DI, CX
	MOVQ $1, AX
	SHLQ CX, AX
	LOCK
	ORQ  AX, ·pending(SB)
	MOVL $1, AX // SYS_write
	MOVL ·event(SB), DI
	LEAQ ·one(SB), SI
	MOVL $8, DX
	SYSCALL
	RET

// What the handler returns to: rt_sigreturn(2).
TEXT ·restore(SB), NOSPLIT|NOFRAME, $0
	MOVL $15, AX // SYS_rt_sigreturn
	SYSCALL
	INT  $3

TEXT ·handlerPC(SB), NOSPLIT, $0-8
	LEAQ ·handler(SB), AX
	MOVQ AX, ret+0(FP)
	RET

TEXT ·restorerPC(SB), NOSPLIT, $0-8
	LEAQ ·restore(SB), AX
	MOVQ AX, ret+0(FP)
	RET
