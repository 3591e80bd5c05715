//go:build !amd64 && !arm64

package graceperiod

// BeginApart does nothing.
func BeginApart() {}

// BeginLate is Begin by the daemon.
func BeginLate() { Begin() }
