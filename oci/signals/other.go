//go:build !amd64 && !arm64

package signals

import (
	"os"
	"os/signal"
	"syscall"
)

func notify(f func(syscall.Signal), signals []syscall.Signal) {
	if f == nil {
		f = func(syscall.Signal) {}
	}
	come := make(chan os.Signal, 8)
	signal.Reset(list(signals)...)
	signal.Notify(come, list(signals)...)
	go func() {
		for s := range come {
			f(s.(syscall.Signal))
		}
	}()
}

func ignore(signals []syscall.Signal) (undo func()) {
	signal.Ignore(list(signals)...)
	return func() { signal.Reset(list(signals)...) }
}

func list(signals []syscall.Signal) []os.Signal {
	all := make([]os.Signal, len(signals))
	for i, s := range signals {
		all[i] = s
	}
	return all
}
