package upgrade

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cleatrun/cleat/shim/events"
)

// fields lists what there is in a type of the state.
func fields(at string, t reflect.Type, seen []reflect.Type) (list []string) {
	switch {
	case t == reflect.TypeFor[time.Time](), t == reflect.TypeFor[json.RawMessage]():
		return []string{at + " " + t.String()}
	case slices.Contains(seen, t):
		return []string{at + " again " + t.String()}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return fields(at, t.Elem(), seen)
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() != reflect.Uint8 {
			return fields(at+"[]", t.Elem(), seen)
		}
	case reflect.Map:
		return fields(at+"{}", t.Elem(), seen)
	case reflect.Struct:
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case !f.IsExported() || name == "-":
				continue
			case name == "":
				name = f.Name
			}
			inner := at + "." + name
			if f.Anonymous && f.Tag.Get("json") == "" {
				inner = at
			}
			list = append(list, fields(inner, f.Type, append(slices.Clone(seen), t))...)
		}
		return list
	}
	return []string{at + " " + t.Kind().String()}
}

// The state does not change within a version: who adds to it raises the version
// and leaves its fields here, and a state in shim's testdata. Nothing that an
// older version has is taken away while that is read.
func TestFieldsOfTheStateAreThoseOfItsVersion(t *testing.T) {
	now := fields("", reflect.TypeFor[State](), nil)
	ours := Ours()
	for version := ours.Oldest; version <= ours.Version; version++ {
		path := fmt.Sprintf("testdata/fields-%d", version)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		then := strings.Split(strings.TrimSpace(string(text)), "\n")
		for _, field := range then {
			if !slices.Contains(now, field) {
				t.Errorf("version %d has %s, which is gone", version, field)
			}
		}
		if version == ours.Version {
			for _, field := range now {
				if !slices.Contains(then, field) {
					t.Errorf("%s is new: it needs another version than %d (versions.go)", field, version)
				}
			}
		}
	}
	if t.Failed() {
		t.Logf("the fields are now\n%s", strings.Join(now, "\n"))
	}
}

// A state is handed to a program that does not know of events in a file when
// there are none.
func TestFloorIsThatOfWhatIsInTheState(t *testing.T) {
	old := Versions{Version: 1, Oldest: 1}
	s := State{Versions: Written()}
	s.RaiseFloor()
	if err := old.Readable(s.Versions); err != nil {
		t.Errorf("without such events: %v", err)
	}
	s.Events.Spilled = &events.Spilled{}
	s.RaiseFloor()
	if err := old.Readable(s.Versions); err == nil {
		t.Error("events in a file are handed to a program that would lose them")
	}
	if err := Ours().Readable(s.Versions); err != nil {
		t.Error(err)
	}
}
