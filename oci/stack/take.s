#include "textflag.h"

TEXT ·take4K(SB), 0, $4096-0
	RET

TEXT ·take8K(SB), 0, $8192-0
	RET

TEXT ·take16K(SB), 0, $16384-0
	RET
