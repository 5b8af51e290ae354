"""Runs the client against the sidecar at $WALSTORAGE_SOCKET."""

import uuid

import grpc
import pytest

import example
import walstorage_client
from walstorage_client import Log


class LostReply(grpc.RpcError):
    """What a caller sees of a call that was carried out and whose reply did not come."""

    def __init__(self, code: grpc.StatusCode):
        self._code = code

    def code(self):
        return self._code

    def details(self):
        return "the reply was lost"


class LoseReplies(grpc.UnaryUnaryClientInterceptor):
    """Lets calls through, then loses the replies of the first ones."""

    def __init__(self, *codes: grpc.StatusCode):
        self.codes = list(codes)
        self.calls = 0

    def intercept_unary_unary(self, continuation, details, request):
        outcome = continuation(details, request)
        self.calls += 1
        if self.codes:
            outcome.result()
            raise LostReply(self.codes.pop(0))
        return outcome


class Clock:
    """Time that passes only in sleep."""

    now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def collection():
    return f"python-{uuid.uuid4().hex}"


def test_entries_are_read_back_in_order(collection):
    log = Log(collection)
    assert log.append(b"a", b"b").first == 1
    assert log.append(b"").last == 3
    assert list(log.read()) == [(1, b"a"), (2, b"b"), (3, b"")]
    assert list(log.read(3)) == [(3, b"")]


@pytest.mark.parametrize("code", sorted(walstorage_client.RETRYABLE, key=lambda code: code.name))
def test_a_retry_after_a_lost_reply_does_not_append_twice(collection, code):
    faults = LoseReplies(code, code)
    log = Log(collection, interceptors=[faults])
    appended = log.append(b"once")
    assert (appended.first, appended.last) == (1, 1)
    assert faults.calls == 3
    assert log.append(b"next").first == 2
    assert [payload for _, payload in log.read()] == [b"once", b"next"]


def test_an_append_after_giving_up_is_not_taken_for_the_one_given_up(collection, monkeypatch):
    monkeypatch.setattr(walstorage_client, "time", Clock())
    faults = LoseReplies(*[grpc.StatusCode.UNAVAILABLE] * 1000)
    log = Log(collection, interceptors=[faults])
    with pytest.raises(walstorage_client.OutcomeUnknown):
        log.append(b"given up")
    assert faults.calls > 10
    faults.codes.clear()
    assert log.append(b"later").first == 2
    assert [payload for _, payload in log.read()] == [b"given up", b"later"]


def test_a_refused_append_is_not_retried(collection):
    faults = LoseReplies()
    log = Log(collection, interceptors=[faults])
    with pytest.raises(grpc.RpcError) as refused:
        log.append()
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert faults.calls == 1
    assert log.append(b"fine").first == 1


def test_truncated_entries_are_gone(collection):
    log = Log(collection)
    log.append(b"a", b"b", b"c")
    assert log.truncate(2) == 2
    assert log.truncate(1) == 2
    assert list(log.read()) == [(3, b"c")]
    with pytest.raises(grpc.RpcError) as truncated:
        list(log.read(1))
    assert truncated.value.code() == grpc.StatusCode.OUT_OF_RANGE


def test_a_follower_gets_later_entries(collection):
    log = Log(collection)
    log.append(b"first")
    follower = log.read(follow=True)
    assert next(follower) == (1, b"first")
    log.append(b"second")
    assert next(follower) == (2, b"second")
    follower.close()


def test_a_gap_is_raised_and_names_what_is_lost(collection, monkeypatch):
    log = Log(collection)
    items = [
        walstorage_client.wal_pb2.Item(entry={"lsn": 1, "payload": b"a"}),
        walstorage_client.wal_pb2.Item(gap={"first": 2, "last": 5, "reason": "DAMAGE"}),
    ]
    replies = [walstorage_client.wal_pb2.ReadReply(items=items)]
    monkeypatch.setattr(log._wal, "Read", lambda request: iter(replies))
    reader = log.read()
    assert next(reader) == (1, b"a")
    with pytest.raises(walstorage_client.Gap) as gap:
        next(reader)
    assert (gap.value.first, gap.value.last, gap.value.reason) == (2, 5, "DAMAGE")


def test_the_example_runs(capsys):
    example.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["appended", "read", "read", "read", "truncated"]
