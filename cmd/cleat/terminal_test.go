package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func TestAgesForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 1234 * time.Microsecond: "1ms", 2340 * time.Millisecond: "2.3s", 59 * time.Second: "59s",
		61 * time.Second: "1m1s", 90 * time.Minute: "1h30m", 50 * time.Hour: "2d2h",
	} {
		if got := age(d); got != want {
			t.Errorf("%s is %s, want %s", d, got, want)
		}
	}
}

// A failure is one sentence, without the classes that programs go by.
func TestSentences(t *testing.T) {
	class := fmt.Errorf("/x is a directory: %w", errdefs.ErrInvalidArgument)
	for _, err := range []error{class, fmt.Errorf("%w: %w", class, errdefs.ErrUnavailable), fmt.Errorf("%w\n%w", class, errdefs.ErrNotFound)} {
		if got := sentence(err); got != "/x is a directory" {
			t.Errorf("%q", got)
		}
	}
}
