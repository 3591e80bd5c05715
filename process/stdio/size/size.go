// Package size reads sizes as administrators write them.
package size

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Parse reads a number of bytes, such as 65536, 64k, 10m or 1Gi: the units
// are powers of 1024.
func Parse(text string) (int64, error) {
	number := strings.ToLower(text)
	shift := 0
	for unit, bits := range map[string]int{"k": 10, "m": 20, "g": 30} {
		for _, suffix := range []string{unit, unit + "i"} {
			if n, is := strings.CutSuffix(number, suffix); is {
				number, shift = n, bits
			}
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || strings.HasPrefix(number, "+") || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is not a size such as 64k, 10m or 1g", text)
	}
	return n << shift, nil
}
