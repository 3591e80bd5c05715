// Package signals tells of signals to this process, as os/signal does, without the
// three threads that it takes for it, for as long as the process lives: one that
// waits for signals, one that changes masks, and one from which threads are made.
// A shim has two or three besides; each thread is 28 KiB of kernel memory.
//
// Instead, a signal handler of a few instructions (signal-safety(7)) notes the
// signal and writes to an eventfd(2), which Go's netpoller watches. It is installed over
// that of Go's runtime, for signals that the runtime does not use itself. Children
// have signals as if this were not there: execve(2) resets what is caught.
//
// On machines for which there is no such handler, os/signal does it.
package signals

import "syscall"

// Notify calls f with each of the signals that comes from now on, one after the
// other, on a goroutine that all share: f must not block. A signal that comes
// several times meanwhile may be told once. With no f they are caught, and nothing
// is done: what is ignored would be ignored in children, too.
//
// A signal has one f; the last one counts.
func Notify(f func(syscall.Signal), signals ...syscall.Signal) { notify(f, signals) }

// Ignore makes the kernel ignore signals, also in the program that replaces this
// one, until undo is called.
func Ignore(signals ...syscall.Signal) (undo func()) { return ignore(signals) }
