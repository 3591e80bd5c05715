package stdio

import (
	"fmt"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/cleatrun/cleat/process/stdio/size"
	"github.com/containerd/errdefs"
)

// kind says what a stream's URI leads to.
type kind int

const (
	none     kind = iota // nothing asked for: the null device
	fifo                 // a named pipe that the client made
	file                 // a file that is appended to
	binary               // a logger; the end of its ready descriptor means ready
	binaryV2             // a logger; a byte on its ready descriptor means ready
)

// target is one stream's URI taken apart.
type target struct {
	kind     kind
	path     string   // absolute
	args     []string // of a logger
	format   format   // of a file
	rotation rotation // of a file
}

// rotation is when and how a file is rotated; the zero value says never.
type rotation struct {
	size  int64 // that a file does not get larger than
	files int   // that there are at most, the one that is written to included
}

const (
	// minRotation is the least max-size, maxFiles the most max-files.
	minRotation = 4 << 10
	maxFiles    = 1000
	// usualFiles is how many files there are if nothing else is said: kubelet's
	// containerLogMaxFiles.
	usualFiles = 5
)

func (t target) logger() bool { return t.kind == binary || t.kind == binaryV2 }

// schemes are all that a URI may begin with. containerd tells its clients
// that every shim takes fifo, file, binary and binary-v2.
var schemes = map[string]kind{"": fifo, "fifo": fifo, "file": file, "binary": binary, "binary-v2": binaryV2}

// parse takes the URI of the named stream apart. A bare absolute path is a
// FIFO's, taken as it is: it may hold any character, '%' and '?' too. In a URL
// nothing is skipped over: a host, a user, a fragment, or a query where none
// has a meaning are errors, because a log that silently goes elsewhere is worse
// than a container that does not start. Errors are ErrInvalidArgument.
func parse(stream, uri string) (target, error) {
	switch {
	case uri == "":
		return target{}, nil
	case strings.ContainsRune(uri, 0):
		return target{}, invalid(stream, uri, "it holds a zero byte")
	case strings.HasPrefix(uri, "/"):
		return target{kind: fifo, path: uri}, nil
	}
	u, err := url.Parse(uri)
	if err != nil {
		// url.Error repeats the URI; its inner error alone says why.
		if e, ok := err.(*url.Error); ok {
			err = e.Err
		}
		return target{}, invalid(stream, uri, err.Error())
	}
	k, known := schemes[u.Scheme]
	t := target{kind: k, path: u.Path}
	switch {
	case !known:
		return target{}, invalid(stream, uri, fmt.Sprintf("unknown scheme %q", u.Scheme))
	case u.Host != "" || u.User != nil || u.Opaque != "" || !path.IsAbs(u.Path):
		return target{}, invalid(stream, uri, "the path must be absolute")
	case u.Fragment != "":
		return target{}, invalid(stream, uri, "a fragment has no meaning here")
	case strings.ContainsRune(u.Path, 0):
		return target{}, invalid(stream, uri, "the path holds a zero byte")
	case t.logger():
		if t.args, err = arguments(u.RawQuery); err != nil {
			return target{}, invalid(stream, uri, err.Error())
		}
	case k == file:
		if err := t.fileParameters(u.RawQuery); err != nil {
			return target{}, invalid(stream, uri, err.Error())
		}
	case u.RawQuery != "":
		return target{}, invalid(stream, uri, "a query has no meaning here")
	}
	return t, nil
}

// fileParameters takes apart the query of a file's URL.
func (t *target) fileParameters(query string) error {
	words, err := arguments(query)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := 0; i < len(words); i += 2 {
		key, value := words[i], words[i+1]
		if seen[key] {
			return fmt.Errorf("%s is there twice", key)
		}
		seen[key] = true
		switch key {
		case "max-size":
			if t.rotation.size, err = size.Parse(value); err != nil {
				return fmt.Errorf("max-size: %w", err)
			}
			if t.rotation.size < minRotation {
				return fmt.Errorf("max-size is %q, less than %d bytes", value, minRotation)
			}
		case "max-files":
			t.rotation.files, err = strconv.Atoi(value)
			if err != nil || t.rotation.files < 1 || t.rotation.files > maxFiles {
				return fmt.Errorf("max-files is %q, not a number from 1 to %d", value, maxFiles)
			}
		case "format":
			switch t.format = format(value); t.format {
			case raw, cri, jsonFile:
			default:
				return fmt.Errorf("format is %q, not one of %s, %s, %s", value, raw, cri, jsonFile)
			}
		default:
			return fmt.Errorf("parameter %q is not known, max-size, max-files and format are", key)
		}
	}
	switch {
	case seen["max-files"] && !seen["max-size"]:
		return fmt.Errorf("max-files says nothing without max-size")
	case seen["max-size"] && !seen["max-files"]:
		t.rotation.files = usualFiles
	}
	return nil
}

// arguments makes a logger's arguments of its URL's query: each key followed
// by its value, in the order given, repeated keys kept, the value "" where
// there is none. url.Values cannot be used: it is a map, so it knows neither
// the order nor, with Get, the repetitions.
func arguments(query string) ([]string, error) {
	var args []string
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		if strings.ContainsRune(pair, ';') {
			return nil, fmt.Errorf("a semicolon separates nothing in the query")
		}
		key, value, _ := strings.Cut(pair, "=")
		for _, word := range []string{key, value} {
			word, err := url.QueryUnescape(word)
			if err != nil {
				return nil, err
			}
			if strings.ContainsRune(word, 0) {
				return nil, fmt.Errorf("an argument holds a zero byte")
			}
			args = append(args, word)
		}
	}
	return args, nil
}

func invalid(stream, uri, why string) error {
	return fmt.Errorf("%s %q: %s: %w", stream, uri, why, errdefs.ErrInvalidArgument)
}
