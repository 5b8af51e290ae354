// Package walstorage is a small client of WalStorage: one collection, appended to and read over the sidecar's unix
// socket. It shows the three things that a client has to get right:
//
//  1. An append is retried with the same producer id and sequence, so that an entry whose acknowledgement was lost is
//     not written twice.
//  2. When retrying is given up, the outcome is unknown. The sequence is never used again for other entries: the next
//     append takes a new producer id.
//  3. A read may contain a gap, entries that storage has lost. It is an error, never skipped.
package walstorage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/walstorage/walstorage/examples/clients/go/walpb"
)

// ErrOutcomeUnknown says that retrying was given up: the entries may be in the log or not. Read the log to find out.
var ErrOutcomeUnknown = errors.New("gave up: the entries may have been appended or not")

// Gap says that the entries First to Last are lost. Reading can go on at Last + 1.
type Gap struct {
	First, Last uint64
	Reason      string
}

func (g *Gap) Error() string {
	return fmt.Sprintf("entries %d to %d are lost: %s", g.First, g.Last, g.Reason)
}

// Entry is a durable entry.
type Entry struct {
	LSN     uint64
	Payload []byte
}

// Log is one collection. It may be used from several goroutines; appends take turns, for the sequence allows one in
// flight.
type Log struct {
	connection *grpc.ClientConn
	wal        walpb.WalClient
	collection string

	mutex      sync.Mutex
	producerID string
	sequence   uint64
}

// Open connects lazily to the sidecar's socket.
func Open(socket, collection string, options ...grpc.DialOption) (*Log, error) {
	options = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// An entry may have 16 MiB; grpc refuses messages above 4 MiB unless told otherwise.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(48 << 20)),
	}, options...)
	connection, err := grpc.NewClient("unix:"+socket, options...)
	if err != nil {
		return nil, err
	}
	return &Log{
		connection: connection,
		wal:        walpb.NewWalClient(connection),
		collection: collection,
		producerID: rand.Text(),
	}, nil
}

// Close closes the connection.
func (l *Log) Close() error { return l.connection.Close() }

// Append appends the payloads as one atomic batch and returns when they are durable, with the LSNs of the first and
// the last. It retries until the context ends.
func (l *Log) Append(ctx context.Context, payloads ...[]byte) (first, last uint64, err error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.sequence++
	request := &walpb.AppendRequest{Collection: l.collection, ProducerId: l.producerID, ProducerSeq: l.sequence}
	for _, payload := range payloads {
		request.Entries = append(request.Entries, &walpb.Entry{Payload: payload})
	}
	reply, err := retry(ctx, request, l.wal.AppendBatch)
	if err != nil {
		l.producerID, l.sequence = rand.Text(), 0
		return 0, 0, err
	}
	return reply.FirstLsn, reply.LastLsn, nil
}

// Read calls each with every durable entry from an LSN; 0 is the first one that is not truncated. With follow it waits
// for more until the context ends. After a restart, an application reads from the last LSN it has applied + 1.
func (l *Log) Read(ctx context.Context, from uint64, follow bool, each func(Entry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := l.wal.Read(ctx, &walpb.ReadRequest{Collection: l.collection, From: from, Follow: follow})
	if err != nil {
		return err
	}
	for {
		reply, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		for _, item := range reply.Items {
			if gap := item.GetGap(); gap != nil {
				return &Gap{First: gap.First, Last: gap.Last, Reason: gap.Reason.String()}
			}
			if err := each(Entry{LSN: item.GetEntry().Lsn, Payload: item.GetEntry().Payload}); err != nil {
				return err
			}
		}
	}
}

// Truncate forgets every entry up to and including an LSN: the application has applied them.
func (l *Log) Truncate(ctx context.Context, upTo uint64) (truncatedTo uint64, err error) {
	reply, err := retry(ctx, &walpb.TruncateRequest{Collection: l.collection, UpTo: upTo}, l.wal.Truncate)
	if err != nil {
		return 0, err
	}
	return reply.TruncatedTo, nil
}

// The sidecar may be restarting, out of room until the application truncates, or may have lost the answer. With a
// producer sequence it is safe to send the same request again in each of these cases.
func retryable(code codes.Code) bool {
	switch code {
	case codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded, codes.Unknown:
		return true
	default:
		return false
	}
}

func retry[Request, Reply any](
	ctx context.Context,
	request *Request,
	call func(context.Context, *Request, ...grpc.CallOption) (*Reply, error),
) (*Reply, error) {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		reply, err := call(ctx, request)
		if err == nil {
			return reply, nil
		}
		if !retryable(status.Code(err)) && ctx.Err() == nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (%w): %w", ErrOutcomeUnknown, ctx.Err(), err)
		case <-time.After(pause):
		}
	}
}
