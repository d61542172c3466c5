"""The net under the callbacks: no exception is silence, and none gets out."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from sipward.flow import DONE, Flow
from sipward.guard import Callbacks
from unit.recorder import Recorder, edge

HANDLER = Path(__file__).resolve().parents[2] / "kemi" / "handler.py"
INVITE = "INVITE sip:1@acme.example SIP/2.0\nCall-ID: a b\x1b[2J\nCSeq: 1 INVITE\n\n"
NOT_UTF8 = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
ANYTHING = [ValueError("x"), KeyError(1), SystemExit(1), KeyboardInterrupt(), MemoryError(), RecursionError()]


class Broken(Flow):
    """A flow in which everything raises the same."""

    def __init__(self, sip: Recorder, error: BaseException) -> None:
        super().__init__(sip.module, edge())
        self.error = error

    def request(self) -> None:
        raise self.error

    reply = failure = stray_reply = request


def refused(why: str, method: str, *, code: int, src_ip: str = "198.51.100.7", callid: str = "a?b?[2J") -> str:
    return f"event=refused why={why} method={method} src_ip={src_ip} tenant=- code={code} callid={callid}"


def callbacks(sip: Recorder, error: BaseException) -> Callbacks:
    def sync() -> None:
        raise error

    return Callbacks(sip.module, Broken(sip, error), sync, sync)


@pytest.mark.parametrize("error", ANYTHING)
def test_the_caller_gets_one_500_and_the_log_says_where(error: BaseException) -> None:
    sip = Recorder(INVITE)
    assert callbacks(sip, error).ksr_request_route(None) == DONE
    assert sip.did("answer") == [(500, "")]
    assert sip.counted == ["exception"]
    assert any("Traceback" in line for line in sip.logged)
    *traceback, refusal = sip.logged
    assert all(line.startswith("event=exception callid=a?b?[2J ") for line in traceback)
    assert refusal == refused("exception", "INVITE", code=500)


def test_a_request_that_is_not_utf8_is_refused_without_a_traceback() -> None:
    sip = Recorder(INVITE)
    assert callbacks(sip, NOT_UTF8).ksr_request_route(None) == DONE
    assert sip.did("answer") == [(400, "")]
    assert sip.counted == ["not-utf8"]
    assert sip.logged == [refused("not-utf8", "INVITE", code=400)]


@pytest.mark.parametrize(
    ("broken", "said"),
    [("method", {"method": "?"}), ("source", {"src_ip": "?"}), ("call_id", {"callid": "?"})],
)
def test_what_cannot_be_read_of_a_refused_request_is_a_question_mark(
    broken: str, said: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sip = Recorder(INVITE)

    def fail() -> None:
        raise NOT_UTF8

    monkeypatch.setattr(sip, broken, fail)
    assert callbacks(sip, NOT_UTF8).ksr_request_route(None) == DONE
    assert sip.did("answer") == [(400, "")]
    (line,) = sip.logged
    facts = dict(word.split("=", 1) for word in line.split())
    assert facts == {
        "event": "refused", "why": "not-utf8", "method": "INVITE", "src_ip": "198.51.100.7", "tenant": "-",
        "code": "400", "callid": "a?b?[2J", **said,
    }  # fmt: skip


@pytest.mark.parametrize("error", [*ANYTHING, NOT_UTF8])
def test_an_ack_is_never_answered(error: BaseException) -> None:
    sip = Recorder(INVITE.replace("INVITE", "ACK"))
    assert callbacks(sip, error).ksr_request_route(None) == DONE
    assert not sip.did("answer")
    assert not any("event=refused" in line for line in sip.logged)


@pytest.mark.parametrize("error", [*ANYTHING, NOT_UTF8])
@pytest.mark.parametrize(
    "callback", [Callbacks.ksr_reply, Callbacks.ksr_failure, Callbacks.ksr_stray_reply, Callbacks.ksr_sync]
)
def test_a_reply_a_failure_and_the_sync_process_go_on(
    callback: Callable[[Callbacks, object], int], error: BaseException
) -> None:
    sip = Recorder("SIP/2.0 200 OK\nCall-ID: 1\nCSeq: 1 INVITE\n\n")
    assert callback(callbacks(sip, error), None) == DONE
    assert sip.counted == ["exception"]
    assert not sip.did("answer")


@pytest.mark.parametrize("error", [*ANYTHING, NOT_UTF8])
def test_a_reply_that_raises_goes_on_stripped_of_all_that_may_show_the_inside(error: BaseException) -> None:
    sip = Recorder(
        "SIP/2.0 200 OK\nVia: ours\nVia: phone\nFrom: <sip:7@a>;tag=a\nTo: <sip:8@a>;tag=b\nCall-ID: 1\n"
        "CSeq: 1 INVITE\nContact: <sip:8@10.5.4.11>\nRecord-Route: <sip:10.5.4.1;lr>\n"
        "Record-Route: <sip:10.5.4.12;lr>\nWarning: 399 10.5.4.11\n"
        "P-Asserted-Identity: <sip:8@10.5.4.11>\nRetry-After: 5\nContent-Type: application/sdp\n\nc=IN IP4 10.5.4.11"
    )
    assert callbacks(sip, error).ksr_reply(None) == DONE
    assert "10.5.4." not in sip.buffer()
    names = ["Via", "Via", "From", "To", "Call-ID", "CSeq", "Retry-After", "Content-Type"]
    assert [name for name, _ in sip.fields] == names
    assert sip.body() == ""
    assert sip.counted == ["exception"]


def test_a_failure_or_a_stray_reply_that_raises_is_not_stripped() -> None:
    text = "SIP/2.0 200 OK\nCall-ID: 1\nCSeq: 1 INVITE\nX: y\n\n"
    for callback in (Callbacks.ksr_failure, Callbacks.ksr_stray_reply):
        sip = Recorder(text)
        callback(callbacks(sip, ValueError()), None)
        assert sip.header("X") == "y"


@pytest.mark.parametrize("broken", ["method", "call_id", "count", "answer"])
def test_the_net_holds_when_kamailio_itself_fails(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sip = Recorder(INVITE)

    def fail(*_: object) -> None:
        raise NOT_UTF8

    monkeypatch.setattr(sip, broken, fail)
    assert callbacks(sip, ValueError()).ksr_request_route(None) == DONE
    assert callbacks(sip, ValueError()).ksr_reply(None) == DONE
    assert any("ValueError" in line for line in sip.logged)
    assert callbacks(sip, NOT_UTF8).ksr_request_route(None) == DONE


def test_every_callback_returns_a_number_when_all_is_well() -> None:
    sip = Recorder("OPTIONS sip:edge.example SIP/2.0\nCall-ID: 1\nTo: <sip:edge.example>\nCSeq: 1 OPTIONS\n\n")
    net = Callbacks(sip.module, Flow(sip.module, edge()), lambda: None, lambda: None)
    assert net.child_init(0) == net.ksr_request_route(None) == net.ksr_sync(None, "timer") == DONE
    assert sip.did("answer") == [(200, "")]
    sip = Recorder("SIP/2.0 200 OK\nCSeq: 1 INVITE\n\n")
    net = Callbacks(sip.module, Flow(sip.module, edge()), lambda: None, lambda: None)
    assert net.ksr_reply(None) == net.ksr_failure(None) == DONE


def test_all_names_that_the_flow_asks_for_are_callbacks() -> None:
    for name in ("ksr_request_route", "ksr_reply", "ksr_stray_reply", "ksr_failure", "ksr_sync", "child_init"):
        assert callable(cast("object", getattr(Callbacks, name)))


def test_what_workers_load_brings_no_openssl() -> None:
    """It keeps state for each thread, and would be there before Kamailio forks."""
    imports = [line for line in HANDLER.read_text().splitlines() if line.startswith("from sipward")]
    program = "\n".join(["import sys", "sys.modules['KSR'] = sys", *imports, "print('_hashlib' in sys.modules)"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
