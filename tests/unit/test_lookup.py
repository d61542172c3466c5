"""RFC 3263 as a table: what the DNS has, and where a name leads."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import dns.rrset
import pytest
from dns.name import Name as DnsName

from sipward.lookup import Dns
from sipward.resolver import LookUpError, Name

OWN = (ip_address("203.0.113.10"), ip_address("2001:db8::10"))

NAPTR = {
    "c.example NAPTR": [
        '50 10 "s" "SIPS+D2T" "" _sips._tcp.c.example.',
        '20 20 "s" "SIP+D2U" "" aa._udp.c.example.',
        '20 10 "s" "sip+d2u" "" zz._udp.c.example.',
        '10 10 "s" "SIP+D2T" "" _sip._tcp.c.example.',
    ],
    "zz._udp.c.example SRV": ["1 0 5062 a.c.example."],
    "aa._udp.c.example SRV": ["1 0 5063 b.c.example."],
    "_sip._udp.c.example SRV": ["1 0 5064 b.c.example."],
    "_sip._tcp.c.example SRV": ["1 0 5065 b.c.example."],
}
HOSTS = {
    "a.c.example A": ["198.51.100.2", "198.51.100.1"],
    "b.c.example A": ["198.51.100.3"],
    "b.c.example AAAA": ["2001:db8:9::3"],
    "c.example A": ["198.51.100.9"],
}
SRV = {"_sip._udp.c.example SRV": ["2 0 5060 a.c.example.", "1 10 5061 b.c.example.", "1 90 5070 a.c.example."]}


class Zone:
    """What the DNS has, as `name TYPE` and the records' texts; a text alone is why it fails."""

    def __init__(self, records: Mapping[str, Sequence[str] | str], lifetimes: Mapping[str, int]) -> None:
        self._records = records
        self._lifetimes = lifetimes
        self.asked: list[str] = []

    def __call__(self, name: DnsName, kind: str) -> tuple[list[Any], float]:
        question = f"{name.to_text(omit_final_dot=True)} {kind}"
        self.asked.append(question)
        match self._records.get(question, []):
            case str(why):
                raise LookUpError(why)
            case []:
                return [], 0.0
            case texts:
                lifetime = self._lifetimes.get(question, 300)
                return list(dns.rrset.from_text(name, lifetime, "IN", kind, *texts)), lifetime


def look_up(
    records: Mapping[str, Sequence[str] | str], name: str = "udp:c.example", lifetimes: Mapping[str, int] | None = None
) -> tuple[list[str], float]:
    answer = Dns((), OWN, Zone(records, lifetimes or {}))(Name.parse(name))
    return [str(end) for end in answer.ends], answer.seconds


@pytest.mark.parametrize(
    ("records", "name", "expected"),
    [
        (HOSTS, "udp:c.example", ["udp:198.51.100.9:5060"]),
        (HOSTS, "tcp:c.example", ["tcp:198.51.100.9:5060"]),
        (HOSTS, "udp:b.c.example", ["udp:198.51.100.3:5060", "udp:[2001:db8:9::3]:5060"]),
        (HOSTS, "udp:a.c.example", ["udp:198.51.100.1:5060", "udp:198.51.100.2:5060"]),
        (HOSTS | SRV, "tcp:c.example", ["tcp:198.51.100.9:5060"]),
        (HOSTS | SRV | NAPTR, "udp:c.example:5080", ["udp:198.51.100.9:5080"]),
        (
            HOSTS | SRV,
            "udp:c.example",
            [
                "udp:198.51.100.1:5070",
                "udp:198.51.100.2:5070",
                "udp:198.51.100.3:5061",
                "udp:[2001:db8:9::3]:5061",
                "udp:198.51.100.1:5060",
                "udp:198.51.100.2:5060",
            ],
        ),
        (
            HOSTS | NAPTR,
            "udp:c.example",
            ["udp:198.51.100.1:5062", "udp:198.51.100.2:5062", "udp:198.51.100.3:5063", "udp:[2001:db8:9::3]:5063"],
        ),
        (HOSTS | NAPTR, "tcp:c.example", ["tcp:198.51.100.3:5065", "tcp:[2001:db8:9::3]:5065"]),
        (HOSTS | {"c.example NAPTR": ['1 1 "a" "SIP+D2U" "" a.c.example.']}, "udp:c.example", [
            "udp:198.51.100.1:5060", "udp:198.51.100.2:5060",
        ]),
        (HOSTS | {"c.example NAPTR": ['1 1 "u" "SIP+D2U" "!.*!sip:x!" .']}, "udp:c.example", ["udp:198.51.100.9:5060"]),
        (HOSTS | {"c.example NAPTR": "no such type"}, "udp:c.example", ["udp:198.51.100.9:5060"]),
        (HOSTS | {"_sip._udp.c.example SRV": ["1 0 5061 none.example.", "2 0 5062 b.c.example."]}, "udp:c.example", [
            "udp:198.51.100.3:5062", "udp:[2001:db8:9::3]:5062",
        ]),
        (
            HOSTS | {"_sip._udp.c.example SRV": ["1 0 5061 x.example.", "2 0 5062 a.c.example."], "x.example A": "no"},
            "udp:c.example",
            ["udp:198.51.100.1:5062", "udp:198.51.100.2:5062"],
        ),
    ],
)  # fmt: skip
def test_a_name_leads_where_the_dns_says(records: Mapping[str, Any], name: str, expected: list[str]) -> None:
    found, _ = look_up(records, name)
    assert found == expected


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ({}, "has no address"),
        ({"c.example A": "the DNS does not answer in time"}, "the DNS does not answer in time"),
        ({"_sip._udp.c.example SRV": "the DNS does not answer in time"}, "the DNS does not answer in time"),
        ({"_sip._udp.c.example SRV": ["0 0 0 ."]}, "says that SIP is not served there"),
        ({"_sip._udp.c.example SRV": ["1 0 5060 none.example."]}, "has no address"),
    ],
)
def test_a_name_without_an_answer_is_told(records: Mapping[str, Any], told: str) -> None:
    with pytest.raises(LookUpError, match=told):
        look_up({**HOSTS, "c.example A": [], **records})


def test_an_answer_holds_as_long_as_the_shortest_of_its_parts() -> None:
    lifetimes = {"_sip._udp.c.example SRV": 200, "b.c.example A": 60}
    assert look_up(HOSTS | SRV, lifetimes=lifetimes)[1] == 60
    assert look_up(HOSTS | SRV, lifetimes={"_sip._udp.c.example SRV": 20})[1] == 20
    part = HOSTS | {"a.c.example A": "down", "a.c.example AAAA": "down"} | SRV
    assert look_up(part)[1] == 30


@pytest.mark.parametrize(("own", "kinds"), [(OWN[:1], {"A"}), (OWN[1:], {"AAAA"}), (OWN, {"A", "AAAA"})])
def test_only_addresses_that_the_node_can_reach_are_asked_for(own: tuple[Any, ...], kinds: set[str]) -> None:
    zone = Zone({"c.example A": ["198.51.100.9"], "c.example AAAA": ["2001:db8::9"]}, {})
    Dns((), own, zone)(Name("udp", "c.example", 5060))
    assert zone.asked == [f"c.example {kind}" for kind in sorted(kinds)]


def test_a_flood_of_addresses_is_cut() -> None:
    found, _ = look_up({"c.example A": [f"198.51.100.{n}" for n in range(100)]})
    assert len(found) == 32
