#include "textflag.h"

// Called by the C rules: R0 is the signal's number. It returns to the kernel's own
// rt_sigreturn(2).
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	MOVD $1, R1
	LSL  R0, R1, R1
	MOVD $·pending(SB), R2

again:
	LDAXR (R2), R3
	ORR   R1, R3
	STLXR R3, (R2), R4
	CBNZ  R4, again
	MOVD  $64, R8 // SYS_write
	MOVW  ·event(SB), R0
	MOVD  $·one(SB), R1
	MOVD  $8, R2
	SVC
	RET

TEXT ·handlerPC(SB), NOSPLIT, $0-8
	MOVD $·handler(SB), R0
	MOVD R0, ret+0(FP)
	RET

TEXT ·restorerPC(SB), NOSPLIT, $0-8
	MOVD ZR, ret+0(FP)
	RET
