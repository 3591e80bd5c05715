package shims

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Match is what an operator means by an id.
type Match struct {
	Shim *Shim
	// Container of the shim, or empty for the shim itself.
	Container string
}

// Name is how the operator is told of it.
func (m Match) Name() string {
	if m.Container == "" {
		return m.Shim.Name()
	}
	return m.Shim.Namespace + "/" + m.Container
}

// ErrNoMatch is the class of an id that stands for nothing.
var ErrNoMatch = errors.New("no shim or container")

// Match finds what is meant by each of ids: the process of a shim, the container
// for which it was started, another one that it serves, or the beginning of one
// of these names, if nothing else begins so.
func (h Host) Match(ctx context.Context, ids ...string) ([]Match, error) {
	all, err := h.Find(ctx)
	if err != nil {
		return nil, err
	}
	candidates := h.candidates(ctx, all)
	var matches []Match
	for _, id := range ids {
		m, err := h.choose(candidates, id)
		if err != nil {
			return nil, err
		}
		matches = append(matches, m)
	}
	return matches, nil
}

// candidates are the shims and the containers for which they were not started.
func (h Host) candidates(ctx context.Context, all []*Shim) []Match {
	var candidates []Match
	var mu sync.Mutex // guards candidates
	var group errgroup.Group
	group.SetLimit(atOnce)
	for _, s := range all {
		candidates = append(candidates, Match{Shim: s})
	}
	for _, s := range all {
		group.Go(func() error {
			for _, id := range s.containers(ctx, h.Limit) {
				if id != s.ID {
					mu.Lock()
					candidates = append(candidates, Match{s, id})
					mu.Unlock()
				}
			}
			return nil
		})
	}
	group.Wait()
	return candidates
}

func (h Host) choose(candidates []Match, id string) (Match, error) {
	if id == "" {
		return Match{}, errors.New("an empty id stands for nothing")
	}
	tests := []func(Match) bool{
		func(m Match) bool { return m.id() == id },
		func(m Match) bool { return m.Container == "" && m.Shim.PID != 0 && strconv.Itoa(m.Shim.PID) == id },
		func(m Match) bool { return strings.HasPrefix(m.id(), id) },
	}
	for _, fits := range tests {
		var found []Match
		for _, m := range candidates {
			if fits(m) {
				found = append(found, m)
			}
		}
		switch {
		case len(found) == 1:
			return found[0], nil
		case len(found) > 1:
			return Match{}, ambiguous(id, found)
		}
	}
	where := ""
	if h.Namespace != "" {
		where = " in the namespace " + h.Namespace
	}
	return Match{}, fmt.Errorf("%w has the id %q, begins so, or is that process%s", ErrNoMatch, id, where)
}

func (m Match) id() string {
	if m.Container != "" {
		return m.Container
	}
	return m.Shim.ID
}

// ambiguous names the first few that an id can mean.
func ambiguous(id string, found []Match) error {
	const most = 5
	var names []string
	namespaces := map[string]bool{}
	for _, m := range found {
		names = append(names, m.Name())
		namespaces[m.Shim.Namespace] = true
	}
	slices.Sort(names)
	text := strings.Join(names[:min(most, len(names))], ", ")
	if len(names) > most {
		text += fmt.Sprintf(" and %d more", len(names)-most)
	}
	if len(namespaces) > 1 {
		text += "; -n chooses a namespace"
	}
	return fmt.Errorf("%q stands for %d: %s", id, len(found), text)
}
