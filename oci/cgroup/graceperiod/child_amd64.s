#include "textflag.h"

// func clone(fd, b uintptr, all, before *uint64) (pid int)
TEXT ·clone(SB), NOSPLIT|NOFRAME, $0-40
	MOVQ	fd+0(FP), R12
	MOVQ	b+8(FP), R13
	MOVQ	before+24(FP), BX
	MOVL	$2, DI	// SIG_SETMASK
	MOVQ	all+16(FP), SI
	MOVQ	BX, DX
	MOVL	$8, R10
	MOVL	$14, AX	// rt_sigprocmask
	SYSCALL
	TESTQ	AX, AX
	JNE	failed
	MOVL	$0x111, DI	// CLONE_VM | SIGCHLD
	XORL	SI, SI
	XORL	DX, DX
	XORL	R10, R10
	XORL	R8, R8
	MOVL	$56, AX	// clone
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	MOVQ	AX, pid+32(FP)
	MOVL	$2, DI
	MOVQ	BX, SI
	XORL	DX, DX
	MOVL	$8, R10
	MOVL	$14, AX
	SYSCALL
	RET
failed:
	MOVQ	AX, pid+32(FP)
	RET
child:
	XORL	DI, DI
	MOVL	$3, AX	// close
	SYSCALL
	MOVL	$1, DI
	MOVL	$3, AX
	SYSCALL
	MOVL	$2, DI
	MOVL	$3, AX
	SYSCALL
	MOVQ	R12, DI
	MOVQ	R13, SI
	MOVL	$1, DX
	MOVL	$1, AX	// write
	SYSCALL
	XORL	DI, DI
	MOVL	$231, AX	// exit_group
	SYSCALL
	INT	$3
