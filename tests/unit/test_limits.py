"""What a tenant or trunk may use at once, and when it is free again."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from sipward import limits
from sipward.decision import Answer, Charge, Relay, Request
from sipward.flow import Flow
from sipward.limits import TOO_FAST, TOO_MANY_CALLS, TOO_MANY_PORTS, TOO_MANY_REGISTRATIONS, Limiter
from sipward.model import Endpoint, Limits, Shares, Side
from sipward.tokens import Dialog
from sipward.uri import Uri
from unit.messages import answered, failed, reply, request, routed, within
from unit.recorder import ACME, PBX, PHONE, Recorder, edge, table

TENANT = Charge("acme", Limits(2, 0, 0))
TRUNK = Charge("%carrier", Limits(1, 0, 0))


@pytest.fixture
def sip() -> Recorder:
    return Recorder("INVITE sip:1@h SIP/2.0\n\n")


@pytest.fixture
def limiter(sip: Recorder) -> Limiter:
    return Limiter(sip.module)


def new(
    method: str, charges: tuple[Charge, ...] = (), *, side: Side = Side.OUTSIDE, host: str = "198.51.100.7",
    tenant: str = "acme", trunk: str = "",
) -> tuple[Request, Relay]:  # fmt: skip
    """A request outside a dialog, and where it goes."""
    uri = Uri("sip", "1", "h")
    request = Request(method, side, Endpoint("udp", host, 5060), "c", uri, None, None, 0, None, False, True)
    return request, Relay(Side.SERVICE, (PBX,), Dialog(tenant, PHONE, PBX, trunk=trunk), charges=charges)


def counted(limiter: Limiter, method: str, charges: tuple[Charge, ...], call: str, **more: Any) -> Answer | None:
    return limiter.refusal(*new(method, charges, **more), call)


def running(sip: Recorder) -> dict[str, int]:
    return {key: int(value) for (table, key), value in sip.memory.items() if table == "calls"}


def test_so_many_calls_and_not_one_more(sip: Recorder, limiter: Limiter) -> None:
    assert [counted(limiter, "INVITE", (TENANT,), call) for call in "abc"] == [None, None, TOO_MANY_CALLS]
    limiter.release("a")
    assert [counted(limiter, "INVITE", (TENANT,), call) for call in "de"] == [None, TOO_MANY_CALLS]
    assert running(sip) == {"acme": 2}


def test_a_call_that_both_sides_end_is_counted_once(
    sip: Recorder, limiter: Limiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted(limiter, "INVITE", (TENANT, TRUNK), "a")
    counted(limiter, "INVITE", (TENANT,), "b")

    def after_another_worker(table: str) -> AbstractContextManager[None]:
        monkeypatch.undo()
        limiter.release("a")
        return sip.locked(table)

    monkeypatch.setattr(sip, "locked", after_another_worker)
    limiter.release("a")
    assert running(sip) == {"acme": 1, "%carrier": 0}


def test_a_call_that_the_trunk_has_no_place_for_takes_none_of_its_tenant(sip: Recorder, limiter: Limiter) -> None:
    assert counted(limiter, "INVITE", (TENANT, TRUNK), "a") is None
    assert counted(limiter, "INVITE", (TENANT, TRUNK), "b") is TOO_MANY_CALLS
    assert running(sip) == {"acme": 1, "%carrier": 1}
    limiter.release("b")
    assert running(sip) == {"acme": 1, "%carrier": 1}


@pytest.mark.parametrize(
    ("method", "most", "refusal"),
    [("INVITE", Limits(0, 2, 0), TOO_FAST), ("REGISTER", Limits(0, 0, 2), TOO_MANY_REGISTRATIONS)],
)
def test_so_many_a_second_and_the_next_second_again(
    method: str, most: Limits, refusal: Answer, limiter: Limiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    charged = (Charge("acme", most),)
    monkeypatch.setattr(limits.time, "time", lambda: 100.9)
    assert [counted(limiter, method, charged, call) for call in "abc"] == [None, None, refusal]
    assert counted(limiter, method, (Charge("globex", most),), "d") is None
    monkeypatch.setattr(limits.time, "time", lambda: 101.0)
    assert counted(limiter, method, charged, "e") is None


@pytest.mark.parametrize(
    ("method", "most"),
    [("REGISTER", Limits(1, 1, 0)), ("INVITE", Limits(0, 0, 1))],
)
def test_each_limit_counts_its_own_method_alone(method: str, most: Limits, limiter: Limiter) -> None:
    assert [counted(limiter, method, (Charge("acme", most),), call) for call in "abc"] == [None] * 3


# --- shares of the ports ---------------------------------------------------------------------------------------------


@pytest.fixture
def sharing(sip: Recorder) -> Limiter:
    """Two streams a source, three a tenant."""
    return Limiter(sip.module, Shares(tenant=3, source=2))


def test_a_source_has_its_share_and_another_one_its_own(sip: Recorder, sharing: Limiter) -> None:
    assert [counted(sharing, "INVITE", (), call) for call in "abc"] == [None, None, TOO_MANY_PORTS]
    assert counted(sharing, "INVITE", (), "d", host="198.51.100.8") is None
    assert running(sip) == {"=acme": 3, "@198.51.100.7": 2, "@198.51.100.8": 1}
    sharing.release("a")
    sharing.release("b")
    assert running(sip) == {"=acme": 1, "@198.51.100.8": 1}


def test_all_addresses_of_an_ipv6_network_are_one_source(sharing: Limiter) -> None:
    hosts = ["2001:db8:1:2::7", "2001:db8:1:2:ffff::1", "2001:db8:1:2::9"]
    assert [counted(sharing, "INVITE", (), host, host=host) for host in hosts] == [None, None, TOO_MANY_PORTS]
    assert counted(sharing, "INVITE", (), "d", host="2001:db8:1:3::7") is None


def test_a_tenant_has_its_share_and_another_one_its_own(sip: Recorder, sharing: Limiter) -> None:
    more = {"side": Side.SERVICE}
    assert [counted(sharing, "INVITE", (), call, **more) for call in "abcd"] == [None, None, None, TOO_MANY_PORTS]
    assert counted(sharing, "INVITE", (), "e", tenant="globex", **more) is None
    assert running(sip) == {"=acme": 3, "=globex": 1}


def test_a_carrier_is_no_source(sip: Recorder, sharing: Limiter) -> None:
    assert [counted(sharing, "INVITE", (), call, trunk="carrier") for call in "abc"] == [None, None, None]
    assert running(sip) == {"=acme": 3}


def test_a_call_that_its_limit_refuses_takes_nothing_of_a_share(sip: Recorder, sharing: Limiter) -> None:
    assert [counted(sharing, "INVITE", (TRUNK,), call) for call in "ab"] == [None, TOO_MANY_CALLS]
    assert running(sip) == {"%carrier": 1, "=acme": 1, "@198.51.100.7": 1}


def test_each_stream_of_a_call_counts_whichever_offer_brings_it(sip: Recorder, sharing: Limiter) -> None:
    counted(sharing, "INVITE", (TENANT,), "a")
    assert [sharing.widen("a", streams) for streams in (2, 2, 1, 3)] == [None, None, None, TOO_MANY_PORTS]
    assert running(sip) == {"acme": 1, "=acme": 2, "@198.51.100.7": 2}
    sharing.release("a")
    assert running(sip) == {"acme": 0, "=acme": 0}


def test_a_call_that_nobody_counts_may_have_any_streams(sip: Recorder, limiter: Limiter, sharing: Limiter) -> None:
    assert sharing.widen("unknown", 9) is None
    counted(limiter, "INVITE", (TENANT,), "a")
    assert limiter.widen("a", 9) is None
    assert running(sip) == {"acme": 1}


# --- on a message's path ---------------------------------------------------------------------------------------------

LIMITED = table(ACME._replace(limits=Limits(1)))


def calling(**trouble: object) -> Recorder:
    return routed(request("INVITE", "sip:100@acme.example", sdp=True), **({"table": LIMITED} | trouble))


def bye(sip: Recorder, status: int) -> None:
    """Hang up from outside, in another transaction with the same shared memory."""
    ended = routed(within("BYE", "sip:100@203.0.113.10"), memory=sip.memory, table=LIMITED)
    answered(ended, reply(status, "BYE"))


@pytest.mark.parametrize(
    ("end", "left"),
    [
        (lambda sip: answered(sip, reply(200, "INVITE")), 1),
        (lambda sip: failed(sip, 486, silent=False), 0),
        (lambda sip: failed(sip, 408, silent=True), 0),
        (lambda sip: failed(sip, 487, silent=False, cancelled=True), 0),
        (lambda sip: bye(sip, 200), 0),
        (lambda sip: bye(sip, 481), 0),
        (lambda sip: bye(sip, 401), 1),
    ],
    ids=["answered", "refused", "silent", "cancelled", "bye", "bye of a dead dialog", "bye that is refused"],
)
def test_a_call_counts_from_its_invite_until_it_fails_or_ends(end: Callable[[Recorder], object], left: int) -> None:
    sip = calling()
    assert running(sip) == {"acme": 1}
    end(sip)
    assert running(sip) == {"acme": left}


def test_a_call_over_the_limit_is_503_and_tells_when_to_come_back() -> None:
    sip = calling(memory={("calls", "acme"): "1"})
    assert sip.did("answer") == [(503, "Retry-After: 10\r\n")]
    assert sip.counted == ["calls-limit"]
    assert not sip.relayed
    assert running(sip) == {"acme": 1}


def test_a_call_without_media_takes_no_place() -> None:
    sip = calling(media_works=False)
    assert sip.did("answer") == [(503, "Retry-After: 5\r\n")]
    assert running(sip) == {"acme": 0}


def test_a_call_that_an_exception_ends_takes_no_place() -> None:
    def broken(flags: str, sdp: str) -> str:
        raise UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "invalid")

    memory: dict[tuple[str, str], str] = {("calls", "acme"): "0"}
    with pytest.raises(UnicodeDecodeError):
        calling(memory=memory, media_offer=broken)
    assert int(memory["calls", "acme"]) == 0
    assert not [key for key in memory if key[0] == "charges"]


def test_a_call_that_cannot_be_sent_takes_no_place() -> None:
    assert running(calling(sendable=False)) == {"acme": 0}


def test_a_request_that_cannot_be_read_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    sip = Recorder(request("INVITE", "sip:100@acme.example"))
    sip.table = LIMITED

    def unreadable(name: str) -> None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    monkeypatch.setattr(sip, "remove_header", unreadable)
    with pytest.raises(UnicodeDecodeError):
        Flow(sip.module, edge()).request()
    assert running(sip) == {"acme": 0}


def test_a_repeated_request_has_one_place(sip: Recorder, limiter: Limiter) -> None:
    """Two workers may count one INVITE, and anybody may send it again."""
    for _ in range(2 * TENANT.limits.calls):
        assert counted(limiter, "INVITE", (TENANT,), "a") is None
    assert running(sip) == {"acme": 1}
    limiter.release("a")
    assert running(sip) == {"acme": 0}


def test_a_request_that_is_refused_again_and_again_keeps_no_place(sip: Recorder, limiter: Limiter) -> None:
    for _ in range(2 * TENANT.limits.calls):
        assert counted(limiter, "INVITE", (TENANT,), "a") is None
        limiter.release("a")
    assert running(sip) == {"acme": 0}


def test_a_forgotten_call_leaves_its_places() -> None:
    sip = Recorder("INVITE sip:1@h SIP/2.0\n\n")
    sip.memory |= {("calls", "acme"): "3", ("calls", "%carrier"): "1"}
    sip.expired = "acme %carrier"
    Flow(sip.module, edge()).forgotten()
    assert running(sip) == {"acme": 2, "%carrier": 0}
