package walstorage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/walstorage/walstorage/examples/clients/go/walpb"
)

// scripts/with-sidecar.sh starts a sidecar and sets WALSTORAGE_SOCKET.
func TestMain(m *testing.M) {
	if os.Getenv("WALSTORAGE_SOCKET") == "" {
		fmt.Fprintln(os.Stderr, "WALSTORAGE_SOCKET is not set; run this suite through scripts/with-sidecar.sh")
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// faults lets calls through, then loses the replies of the first ones.
type faults struct {
	lose  []codes.Code
	calls int
	then  func()
}

func (f *faults) intercept(ctx context.Context, method string, request, reply any, connection *grpc.ClientConn,
	invoker grpc.UnaryInvoker, options ...grpc.CallOption) error {
	err := invoker(ctx, method, request, reply, connection, options...)
	f.calls++
	if err != nil || len(f.lose) == 0 {
		return err
	}
	code := f.lose[0]
	f.lose = f.lose[1:]
	if f.then != nil {
		f.then()
	}
	return status.Error(code, "the reply was lost")
}

func open(t *testing.T, f *faults) *Log {
	t.Helper()
	log, err := Open(os.Getenv("WALSTORAGE_SOCKET"), "go-"+rand.Text(), grpc.WithChainUnaryInterceptor(f.intercept))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	return log
}

func appendAll(t *testing.T, log *Log, payloads ...string) (first, last uint64) {
	t.Helper()
	batch := make([][]byte, 0, len(payloads))
	for _, payload := range payloads {
		batch = append(batch, []byte(payload))
	}
	first, last, err := log.Append(t.Context(), batch...)
	if err != nil {
		t.Fatal(err)
	}
	return first, last
}

func expect(t *testing.T, log *Log, from uint64, want ...string) {
	t.Helper()
	var got []string
	err := log.Read(t.Context(), from, false, func(entry Entry) error {
		got = append(got, fmt.Sprintf("%d %s", entry.LSN, entry.Payload))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("read %q, want %q", got, want)
	}
}

func TestEntriesAreReadBackInOrder(t *testing.T) {
	log := open(t, &faults{})
	if first, last := appendAll(t, log, "a", "b"); first != 1 || last != 2 {
		t.Fatalf("appended %d to %d", first, last)
	}
	appendAll(t, log, "")
	expect(t, log, 0, "1 a", "2 b", "3 ")
	expect(t, log, 3, "3 ")
}

func TestARetryAfterALostReplyDoesNotAppendTwice(t *testing.T) {
	for _, code := range []codes.Code{
		codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded, codes.Unknown,
	} {
		t.Run(code.String(), func(t *testing.T) {
			f := &faults{lose: []codes.Code{code, code}}
			log := open(t, f)
			if first, last := appendAll(t, log, "once"); first != 1 || last != 1 {
				t.Fatalf("appended %d to %d", first, last)
			}
			if f.calls != 3 {
				t.Fatalf("%d calls, want 3", f.calls)
			}
			appendAll(t, log, "next")
			expect(t, log, 0, "1 once", "2 next")
		})
	}
}

func TestAnAppendAfterGivingUpIsNotTakenForTheOneGivenUp(t *testing.T) {
	ctx, giveUp := context.WithCancel(t.Context())
	log := open(t, &faults{lose: []codes.Code{codes.Unavailable}, then: giveUp})
	if _, _, err := log.Append(ctx, []byte("given up")); !errors.Is(err, ErrOutcomeUnknown) {
		t.Fatalf("got %v", err)
	}
	appendAll(t, log, "later")
	expect(t, log, 0, "1 given up", "2 later")
}

func TestARefusedAppendIsNotRetried(t *testing.T) {
	f := &faults{}
	log := open(t, f)
	if _, _, err := log.Append(t.Context()); status.Code(err) != codes.InvalidArgument {
		t.Fatalf("got %v", err)
	}
	if f.calls != 1 {
		t.Fatalf("%d calls, want 1", f.calls)
	}
	appendAll(t, log, "fine")
	expect(t, log, 0, "1 fine")
}

func TestTruncatedEntriesAreGone(t *testing.T) {
	log := open(t, &faults{})
	appendAll(t, log, "a", "b", "c")
	for _, upTo := range []uint64{2, 1} {
		truncatedTo, err := log.Truncate(t.Context(), upTo)
		if err != nil || truncatedTo != 2 {
			t.Fatalf("truncated to %d, %v", truncatedTo, err)
		}
	}
	expect(t, log, 0, "3 c")
	err := log.Read(t.Context(), 1, false, func(Entry) error { return nil })
	if status.Code(err) != codes.OutOfRange {
		t.Fatalf("got %v", err)
	}
}

func TestAFollowerGetsLaterEntries(t *testing.T) {
	log := open(t, &faults{})
	appendAll(t, log, "first")
	enough := errors.New("enough")
	err := log.Read(t.Context(), 0, true, func(entry Entry) error {
		if entry.LSN == 1 {
			appendAll(t, log, "second")
			return nil
		}
		if string(entry.Payload) != "second" {
			t.Errorf("read %q", entry.Payload)
		}
		return enough
	})
	if !errors.Is(err, enough) {
		t.Fatalf("got %v", err)
	}
}

// oneReply answers a read with one message.
type oneReply struct {
	grpc.ServerStreamingClient[walpb.ReadReply]
	reply *walpb.ReadReply
}

func (s oneReply) Recv() (*walpb.ReadReply, error) { return s.reply, nil }

type gapInside struct{ walpb.WalClient }

func (gapInside) Read(context.Context, *walpb.ReadRequest, ...grpc.CallOption) (
	grpc.ServerStreamingClient[walpb.ReadReply], error) {
	return oneReply{reply: &walpb.ReadReply{Items: []*walpb.Item{
		{Item: &walpb.Item_Entry{Entry: &walpb.StoredEntry{Lsn: 1, Payload: []byte("a")}}},
		{Item: &walpb.Item_Gap{Gap: &walpb.Gap{First: 2, Last: 5, Reason: walpb.Reason_DAMAGE}}},
	}}}, nil
}

func TestAGapIsAnErrorThatNamesWhatIsLost(t *testing.T) {
	log := &Log{wal: gapInside{}}
	var read []uint64
	err := log.Read(t.Context(), 0, false, func(entry Entry) error {
		read = append(read, entry.LSN)
		return nil
	})
	var gap *Gap
	if !errors.As(err, &gap) || *gap != (Gap{First: 2, Last: 5, Reason: "DAMAGE"}) {
		t.Fatalf("got %v", err)
	}
	if !slices.Equal(read, []uint64{1}) {
		t.Fatalf("read %v", read)
	}
}
