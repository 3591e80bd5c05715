package bootstrap

import (
	"encoding/json"
	"maps"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci"
	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestAnswersAreByteForByteThoseOfTheGeneratedTypes(t *testing.T) {
	for _, version := range []int{2, 3} {
		want, err := proto.Marshal(&bootapi.BootstrapResult{Version: int32(version), Address: "unix:///a", Protocol: "ttrpc"})
		if err != nil {
			t.Fatal(err)
		}
		if got := startAnswer(false, "unix:///a", version); string(got) != string(want) {
			t.Errorf("version %d: %x, want %x", version, got, want)
		}
	}
	for _, e := range []oci.Exit{
		{},
		{Pid: 4194304, Status: 255, Timestamp: time.Unix(1700000000, 999999999)},
		{Pid: 1, Status: 137, Timestamp: time.Unix(0, 0)},
		{Timestamp: time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)},
		{Timestamp: time.Unix(-5, 7)},
	} {
		want, err := proto.Marshal(&task.DeleteResponse{Pid: uint32(e.Pid), ExitStatus: uint32(e.Status), ExitedAt: timestamppb.New(e.Timestamp)})
		if err != nil {
			t.Fatal(err)
		}
		if got := DeleteAnswer(e); string(got) != string(want) {
			t.Errorf("%+v: %x, want %x", e, got, want)
		}
	}
}

// A containerd before 2.3 takes an address for version 2, and JSON for what it
// says: its own shim of 2.0 to 2.2 serves version 3 alone.
func TestAnswersForAnOlderContainerd(t *testing.T) {
	if got := startAnswer(true, "unix:///a", 2); string(got) != "unix:///a" {
		t.Errorf("version 2: %q", got)
	}
	var got map[string]any
	answer := startAnswer(true, `unix:///a "b"`, 3)
	if err := json.Unmarshal(answer, &got); err != nil {
		t.Fatalf("%q: %v", answer, err)
	}
	want := map[string]any{"version": 3.0, "address": `unix:///a "b"`, "protocol": "ttrpc"}
	if !maps.Equal(got, want) {
		t.Errorf("version 3: %v, want %v", got, want)
	}
}
