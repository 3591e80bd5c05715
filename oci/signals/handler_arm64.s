#include "textflag.h"

// Called by the C rules: R0 is the signal's number. It returns to the kernel's own
// rt_sigreturn(2).
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	SUB  $16, RSP
	MOVB R0, 0(RSP)
	MOVD $64, R8 // SYS_write
	MOVW ·pipe(SB), R0
	MOVD RSP, R1
	MOVD $1, R2
	SVC
	ADD  $16, RSP
	RET

TEXT ·handlerPC(SB), NOSPLIT, $0-8
	MOVD $·handler(SB), R0
	MOVD R0, ret+0(FP)
	RET

TEXT ·restorerPC(SB), NOSPLIT, $0-8
	MOVD ZR, ret+0(FP)
	RET
