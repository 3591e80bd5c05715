package bootstrap

import (
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
