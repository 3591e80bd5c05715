package size

import (
	"fmt"
	"testing"
)

func TestSizesAreReadInTheUnitsOfDockerAndKubernetes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "65536": 65536, "64k": 64 << 10, "64K": 64 << 10, "64Ki": 64 << 10, "10m": 10 << 20, "10Mi": 10 << 20, "1g": 1 << 30, "1Gi": 1 << 30,
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%s: %d and error %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "k", "-1", "+1", "1.5m", "1 m", "1t", "1kb", "10mm", "0x10", "1e6", "9223372036854775807k", fmt.Sprint(uint64(1) << 63)} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}
