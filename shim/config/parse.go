package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"sort"
	"strings"

	"github.com/cleatrun/cleat/shim/options"
	"github.com/pelletier/go-toml/v2"
)

// clientKeys are the keys that clients may use: those of the file, those of
// runc's options, and those that CRI leaves in when it hands over the whole
// table of a runtime handler's options.
type clientKeys struct {
	options.Config
	options.Runc
	TypeURL    string `toml:"TypeUrl"`
	ConfigPath string `toml:"ConfigPath"`
}

// parse reads text, which an error calls name, into keys, a pointer to
// options.Config or clientKeys. What is in keys and not in text stays.
func parse(name string, text []byte, keys any) error {
	err := decode(text, keys)
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) && len(unknown.Errors) > 0 {
		first := unknown.Errors[0]
		line, _ := first.Position()
		key := strings.Join(first.Key(), ".")
		return fmt.Errorf("%s, line %d: unknown key %q, the closest known one is %q", name, line, key, closest(key, Keys(keys)))
	}
	var wrong *toml.DecodeError
	if errors.As(err, &wrong) {
		line, _ := wrong.Position()
		what := strings.TrimPrefix(wrong.Error(), "toml: ")
		if kind, ok := strings.CutPrefix(what, "cannot decode TOML "); ok {
			kind, _, _ = strings.Cut(kind, " into ") // what follows is about our types
			what = "it cannot be of the type " + kind
		}
		if key := wrong.Key(); len(key) > 0 {
			what = strings.Join(key, ".") + ": " + what
		}
		return fmt.Errorf("%s, line %d: %s", name, line, what)
	}
	if err != nil {
		line, key := place(text, reflect.TypeOf(keys).Elem(), err)
		return fmt.Errorf("%s, line %d: %s: %w", name, line, key, err)
	}
	if c, ok := keys.(interface{ Check() error }); ok {
		if err := c.Check(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func decode(text []byte, keys any) error {
	return toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(keys)
}

// place finds the line of an error for which the library tells none, that of a
// number or a truth value which is to be read as text: it is the last one of the
// shortest beginning of text that has the error.
func place(text []byte, keys reflect.Type, err error) (line int, key string) {
	lines := bytes.SplitAfter(text, []byte("\n"))
	line = 1 + sort.Search(len(lines)-1, func(i int) bool {
		found := decode(bytes.Join(lines[:i+1], nil), reflect.New(keys).Interface())
		return found != nil && found.Error() == err.Error()
	})
	before, _, _ := strings.Cut(string(lines[line-1]), "=")
	return line, strings.TrimSpace(before)
}

// Keys are the names of all keys that a pointer to a struct takes, in their
// order, with dots between tables and NAME for a table's own name.
func Keys(of any) []string { return keysOf(reflect.TypeOf(of).Elem()) }

func keysOf(t reflect.Type) (keys []string) {
	for i := range t.NumField() {
		field := t.Field(i)
		name := field.Tag.Get("toml")
		if name == "-" {
			continue
		}
		if field.Anonymous {
			keys = append(keys, keysOf(field.Type)...)
			continue
		}
		inner, ok := field.Type, false
		switch {
		case reflect.PointerTo(inner).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		case inner.Kind() == reflect.Struct:
			ok = true
		case inner.Kind() == reflect.Map && inner.Elem().Kind() == reflect.Struct:
			inner, ok = inner.Elem(), true
			name += ".NAME"
		}
		if !ok {
			keys = append(keys, name)
			continue
		}
		for _, key := range keysOf(inner) {
			keys = append(keys, name+"."+key)
		}
	}
	return keys
}

// closest is the known key that is most like key: by its last word, and then by
// all of it.
func closest(key string, known []string) string {
	best, least := "", 1<<30
	for _, k := range known {
		if table, _, ok := strings.Cut(k, "."); ok && !strings.Contains(key, ".") && distance(key, table) < 3 {
			return table
		}
		d := 1000*distance(last(key), last(k)) + distance(key, k)
		if d < least {
			best, least = k, d
		}
	}
	return best
}

func last(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

// distance is that of Levenshtein.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
