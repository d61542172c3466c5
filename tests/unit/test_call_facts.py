"""What is said of a running call, by what rtpengine knows of it."""

from dataclasses import replace
from typing import Any

import pytest

from sipward import call_facts, media
from sipward.call_facts import Call
from sipward.model import Side
from unit.recorder import edge

NOW = 1000.0
NAME = media.call_name("acme", "a/1 %@h", 42)


def tag(address: str, label: str = "", **changes: Any) -> dict[str, Any]:
    """One party in rtpengine's answer to `query`; `changes` are of its stream of RTP, and `flags` of its media."""
    stream = {
        "endpoint": {"family": "IPv4", "address": address, "port": 4000},
        "last packet": 999,
        "flags": ["RTP", "filled"],
        "stats": {"packets": 50, "errors": 0},
        "stats_out": {"packets": 49},
    } | {name.replace("_", " ") if name == "last_packet" else name: value for name, value in changes.items()}
    rtcp = stream | {"flags": ["RTCP"], "stats": {"packets": 7, "errors": 7}}
    described = {
        "codec": "PCMA/8000",
        "flags": changes.get("media", ["send", "recv"]),
        "streams": [stream, rtcp],
        "ingress SSRCs": [{"packets": 3, "last RTP seq": 3}, {"packets": 50, "last RTP seq": 70000}],
    }
    return {"label": label, "created": 900, "medias": [described]}


def call(first: dict[str, Any], second: dict[str, Any], signalled: int = 900) -> Call:
    answer = {"created": 900, "last signal": signalled, "tags": {"z": first, "a": second}}
    return call_facts.read(NAME, answer, edge().network_of)


PHONE = tag("198.51.100.7", media.parties("al ice", "200", ""))
INSTANCE = tag("10.5.4.11")


def test_a_call_is_read_with_who_called_first() -> None:
    found = call(PHONE, INSTANCE)
    assert (found.tenant, found.call_id, found.caller, found.callee) == ("acme", "a/1 %@h", "al ice", "200")
    assert (found.codec, found.created, found.instance) == ("PCMA/8000", 900, "10.5.4.11:4000")
    phone, instance = found.parties
    assert (phone.kind, phone.side, phone.address, phone.packets, phone.sent, phone.refused) == (
        "phone", Side.OUTSIDE, "198.51.100.7:4000", 50, 49, 0,
    )  # fmt: skip
    assert (instance.kind, instance.side) == ("instance", Side.SERVICE)
    assert found.is_answered


def test_a_call_by_a_trunk_names_the_carrier() -> None:
    found = call(INSTANCE | {"label": media.parties("200", "+39 06", "telco")}, tag("203.0.113.80"))
    assert (found.caller, found.callee) == ("200", "+39 06")
    assert [party.kind for party in found.parties] == ["instance", "carrier telco"]


def test_before_the_answer_there_is_one_party_and_no_problem() -> None:
    nobody = tag("x", endpoint={})
    found = call(tag("198.51.100.7", stats={"packets": 0, "errors": 0}), nobody)
    assert not found.is_answered
    assert call_facts.problem(found, NOW) == ""


SILENT = {"stats": {"packets": 0, "errors": 0}, "last_packet": 900}
QUIET = {"last_packet": 980}
ODD = {"stats": {"packets": 0, "errors": 12}, "last_packet": 900}


@pytest.mark.parametrize(
    ("phone", "instance", "why"),
    [
        ({}, {}, ""),
        (SILENT, {}, "no packets from the phone"),
        (SILENT | {"label": "~a>b"}, {}, "the NAT of the phone was never opened: nothing has come from it"),
        (ODD, {}, "12 packets for the phone came from an unexpected source"),
        (QUIET, {}, "no packets from the phone for 20 s"),
        ({}, SILENT, "no packets from the instance"),
        (SILENT, SILENT, "no packets from the phone; no packets from the instance"),
        (SILENT | {"media": ["recv"]}, {}, ""),
        (SILENT | {"media": []}, SILENT | {"media": []}, ""),
        ({"stats": {"packets": 50, "errors": 12}}, {}, ""),
    ],
)
def test_a_silent_party_is_named_with_the_cause(phone: dict[str, Any], instance: dict[str, Any], why: str) -> None:
    label = {"label": "a>b"}
    found = call(tag("198.51.100.7", **(label | phone)), tag("10.5.4.11", **instance))
    assert call_facts.problem(found, NOW) == why


def test_for_five_seconds_after_an_answer_nobody_is_blamed() -> None:
    found = call(tag("198.51.100.7", **SILENT), INSTANCE, signalled=995)
    assert call_facts.problem(found, 999.9) == ""
    assert call_facts.problem(found, 1000.0) != ""


@pytest.mark.parametrize(
    ("seq", "packets", "lost"),
    [(50, 50, 0.0), (50, 40, 0.2), (50, 0, 1.0), (0, 0, 0.0), (50, 60, 0.0), (-69000, 50, 0.0), (70000, 1, 0.0)],
)
def test_loss_is_what_is_missing_between_two_looks(seq: int, packets: int, lost: float) -> None:
    before = call(PHONE, INSTANCE).parties[0]
    now = replace(before, last_seq=before.last_seq + seq, seq_packets=before.seq_packets + packets)
    assert call_facts.lost(before, now) == pytest.approx(lost)
