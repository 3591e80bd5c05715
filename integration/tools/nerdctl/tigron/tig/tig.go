// Package tig has what a program must name to compile, and never uses.
package tig

// T is what a test is to helpers.
type T interface {
	Helper()
	Log(args ...any)
	FailNow()
}
