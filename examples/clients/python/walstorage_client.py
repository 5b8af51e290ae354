"""A small client of WalStorage: one collection, appended to and read over the sidecar's unix socket.

Copy this file together with wal_pb2.py and wal_pb2_grpc.py. It shows the three things that a client has to get right:

1. An append is retried with the same producer id and sequence, so that an entry whose acknowledgement was lost is
   not written twice.
2. When retrying is given up, the outcome is unknown. The sequence is never used again for other entries: the next
   append takes a new producer id.
3. A read may contain a gap, entries that storage has lost. It is raised, never skipped.
"""

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grpc

import wal_pb2
import wal_pb2_grpc

# The sidecar may be restarting, out of room until the application truncates, or may have lost the answer. With a
# producer sequence it is safe to send the same request again in each of these cases.
RETRYABLE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNKNOWN,
}


class OutcomeUnknown(Exception):
    """Retrying was given up: the entries may be in the log or not. Read the log to find out."""


class Gap(Exception):
    """Entries `first` to `last` are lost. Reading can go on at `last + 1`."""

    def __init__(self, first: int, last: int, reason: str):
        super().__init__(f"entries {first} to {last} are lost: {reason}")
        self.first, self.last, self.reason = first, last, reason


@dataclass(frozen=True)
class Appended:
    """Where the entries of one append lie. Every entry up to `last` is durable."""

    first: int
    last: int


class Log:
    """One collection. Not for several threads at once: the sequence allows one append in flight."""

    def __init__(
        self,
        collection: str,
        socket: str | None = None,
        *,
        give_up_after: float = 30.0,
        interceptors: Sequence[grpc.UnaryUnaryClientInterceptor] = (),
    ):
        target = "unix:" + (socket or os.environ["WALSTORAGE_SOCKET"])
        options = [
            # gRPC's C core would send the socket's path, percent-encoded, as the HTTP/2 authority, which is not a valid
            # one: the sidecar's HTTP stack resets such streams.
            ("grpc.default_authority", "localhost"),
            # An entry may have 16 MiB; grpc refuses messages above 4 MiB unless told otherwise.
            ("grpc.max_receive_message_length", 48 << 20),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        self._channel = grpc.insecure_channel(target, options)
        self._wal = wal_pb2_grpc.WalStub(grpc.intercept_channel(self._channel, *interceptors))
        self._collection = collection
        self._give_up_after = give_up_after
        self._new_producer()

    def _new_producer(self) -> None:
        self._producer_id, self._producer_seq = uuid.uuid4().hex, 0

    def append(self, *payloads: bytes) -> Appended:
        """Appends the payloads as one atomic batch and returns when they are durable."""
        self._producer_seq += 1
        request = wal_pb2.AppendRequest(
            collection=self._collection,
            entries=[wal_pb2.Entry(payload=payload) for payload in payloads],
            producer_id=self._producer_id,
            producer_seq=self._producer_seq,
        )
        try:
            reply = self._retry(self._wal.AppendBatch, request)
        except BaseException:
            self._new_producer()
            raise
        return Appended(reply.first_lsn, reply.last_lsn)

    def read(self, start: int = 0, *, follow: bool = False) -> Iterator[tuple[int, bytes]]:
        """Yields (LSN, payload) of every durable entry from `start`; 0 is the first one that is not truncated. With
        `follow` it waits for more. After a restart, an application reads from the last LSN it has applied + 1."""
        request = wal_pb2.ReadRequest(collection=self._collection, follow=follow, **{"from": start})
        for reply in self._wal.Read(request):
            for item in reply.items:
                if item.HasField("gap"):
                    raise Gap(item.gap.first, item.gap.last, wal_pb2.Reason.Name(item.gap.reason))
                yield item.entry.lsn, item.entry.payload

    def truncate(self, up_to: int) -> int:
        """Forgets every entry up to and including `up_to`: the application has applied them."""
        request = wal_pb2.TruncateRequest(collection=self._collection, up_to=up_to)
        return self._retry(self._wal.Truncate, request).truncated_to

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _retry(self, call, request):
        deadline = time.monotonic() + self._give_up_after
        pause = 0.01
        while True:
            try:
                return call(request, timeout=max(0.001, deadline - time.monotonic()))
            except grpc.RpcError as error:
                if error.code() not in RETRYABLE:
                    raise
                if time.monotonic() + pause >= deadline:
                    raise OutcomeUnknown(f"gave up after {self._give_up_after} s: {error.details()}") from error
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
