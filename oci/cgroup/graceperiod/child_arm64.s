#include "textflag.h"

// func clone(fd, b uintptr, all, before *uint64) (pid int)
TEXT ·clone(SB), NOSPLIT|NOFRAME, $0-40
	MOVD	fd+0(FP), R19
	MOVD	b+8(FP), R20
	MOVD	before+24(FP), R21
	MOVD	$2, R0	// SIG_SETMASK
	MOVD	all+16(FP), R1
	MOVD	R21, R2
	MOVD	$8, R3
	MOVD	$135, R8	// rt_sigprocmask
	SVC
	CBNZ	R0, failed
	MOVD	$0x111, R0	// CLONE_VM | SIGCHLD
	MOVD	ZR, R1
	MOVD	ZR, R2
	MOVD	ZR, R3
	MOVD	ZR, R4
	MOVD	$220, R8	// clone
	SVC
	CBZ	R0, child
	MOVD	R0, pid+32(FP)
	MOVD	$2, R0
	MOVD	R21, R1
	MOVD	ZR, R2
	MOVD	$8, R3
	MOVD	$135, R8
	SVC
	RET
failed:
	MOVD	R0, pid+32(FP)
	RET
child:
	MOVD	ZR, R0
	MOVD	$57, R8	// close
	SVC
	MOVD	$1, R0
	SVC
	MOVD	$2, R0
	SVC
	MOVD	R19, R0
	MOVD	R20, R1
	MOVD	$1, R2
	MOVD	$64, R8	// write
	SVC
	MOVD	ZR, R0
	MOVD	$94, R8	// exit_group
	SVC
	BRK
