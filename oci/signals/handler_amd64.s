#include "textflag.h"

// Called by the C rules: DI is the signal's number. AX is not kept, nor is any
// other register that the kernel does not restore.
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	SUBQ $16, SP
	MOVB DI, 0(SP)
	MOVL $1, AX // SYS_write
	MOVL ·pipe(SB), DI
	MOVQ SP, SI
	MOVL $1, DX
	SYSCALL
	ADDQ $16, SP
	RET

// What the handler returns to: rt_sigreturn(2).
TEXT ·restore(SB), NOSPLIT|NOFRAME, $0
	MOVL $15, AX // SYS_rt_sigreturn
	SYSCALL
	INT $3

TEXT ·handlerPC(SB), NOSPLIT, $0-8
	LEAQ ·handler(SB), AX
	MOVQ AX, ret+0(FP)
	RET

TEXT ·restorerPC(SB), NOSPLIT, $0-8
	LEAQ ·restore(SB), AX
	MOVQ AX, ret+0(FP)
	RET
