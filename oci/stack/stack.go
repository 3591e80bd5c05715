// Package stack gives a goroutine the stack that it is about to need.
//
// Go begins with 2 KiB and doubles that by copying, for which it looks at every
// frame there is: deep in an operation that costs more than what the frame was
// for, two or three times in each. Where a goroutine begins there is next to
// nothing to be copied.
package stack

// Take8K sees to it that the calling goroutine has a stack of 8 KiB at least.
func Take8K() { take4K() }

// Take16K sees to it that it has one of 16 KiB at least.
func Take16K() { take8K() }

// Take32K sees to it that it has one of 32 KiB at least.
func Take32K() { take16K() }

// Functions that have frames of that size, for which the next larger stack is made,
// and do nothing. In Go, a frame that is not used is none.

func take4K()
func take8K()
func take16K()
