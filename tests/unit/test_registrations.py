"""Which flow a phone is at: who it is, what is kept of it, and what it takes back when it has moved."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from sipward.live import FLOWS
from sipward.model import Endpoint, Socket
from sipward.registrations import Registration
from unit.messages import answered, reply, request, routed
from unit.recorder import LAN_PHONE, PHONE, PUBLIC, PUBLIC6, PUBLIC_TCP, Recorder

INSTANCE = '+sip.instance="<urn:uuid:1>"'
OWN = "<sip:7@192.168.1.20:5062>;expires=60"
ELSEWHERE = Endpoint("udp", "198.51.100.8", 5060)


@dataclass
class Registrar:
    """A registrar that grants what it is asked for, and the node's memory between the registrations."""

    memory: dict[tuple[str, str], str] = field(default_factory=dict)
    told: list[tuple[object, ...]] = field(default_factory=list)
    seconds: list[int] = field(default_factory=list)

    def hears(
        self, contact: str = OWN, source: Endpoint = PHONE, on: Socket = PUBLIC, *, call_id: str = "1@h",
        user: str = "100", via: str = "", headers: Sequence[str] = (), status: int = 200, says: str | None = None,
    ) -> list[str]:  # fmt: skip
        """The Contact values of a REGISTER that it hears. `says`: its answer's fields, beside the headers."""
        fields = [f"Contact: {contact}"] if contact else []
        text = request("REGISTER", "sip:acme.example", *fields, *headers, call_id=call_id)
        text = text.replace("<sip:100@", f"<sip:{user}@")
        if via:
            text = text.replace("Via: SIP/2.0/UDP 192.168.1.20;", f"Via: {via};")
        sip = routed(text, source, on, memory=self.memory)
        asked = [value for text in sip.contacts() for value in text.split(", ")]
        granted = ", ".join(value for value in asked if not value.endswith("expires=0") and value != "*")
        answer = [f"Contact: {granted}"] if granted and says is None else [says] if says else []
        answered(sip, reply(status, "REGISTER", *answer, *headers))
        self._note(sip)
        return asked

    def _note(self, sip: Recorder) -> None:
        self.told += sip.did("tell")
        self.seconds += [arguments[3] for arguments in sip.did("store_for")]  # type: ignore[misc]

    @property
    def kept(self) -> list[Registration]:
        return [Registration.read(text) for (table, _), text in self.memory.items() if table == FLOWS]


@pytest.fixture
def registrar() -> Registrar:
    return Registrar()


def uri(value: str) -> str:
    return value.strip("<").partition(">")[0]


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_a_registration_is_kept_as_long_as_the_registrar_grants_it_and_told(registrar: Registrar) -> None:
    [asked] = registrar.hears()
    [kept] = registrar.kept
    assert (kept.tenant, kept.flow) == ("acme", PHONE)
    assert kept.contacts == (uri(asked),)
    assert abs(kept.until - time.time() - 60) < 10
    assert registrar.seconds == [60]
    [(_, key)] = registrar.memory
    assert registrar.told == [(FLOWS, key, str(kept))]


@pytest.mark.parametrize(
    ("contact", "headers", "seconds"),
    [
        ("<sip:7@h>;Expires=90", [], 90),
        ("<sip:7@h>", ["Expires: 120"], 120),
        ("<sip:7@h>", [], 3600),
        ("<sip:7@h>", ["Expires: soon"], 3600),
        ("<sip:7@h>;expires=99999999999", [], 7 * 86_400),
        ("<sip:7@h>;expires=60, <sip:8@h>;expires=600", [], 600),
    ],
)
def test_how_long(contact: str, headers: list[str], seconds: int, registrar: Registrar) -> None:
    registrar.hears(contact, headers=headers)
    assert registrar.seconds == [seconds]


@pytest.mark.parametrize("status", [401, 403, 500])
def test_what_is_refused_changes_nothing(status: int, registrar: Registrar) -> None:
    registrar.hears(status=status)
    assert registrar.kept == []
    registrar.hears()
    before = registrar.kept
    registrar.hears(source=ELSEWHERE, status=status)
    assert registrar.kept == before
    assert len(registrar.told) == 1


@pytest.mark.parametrize("contact", ["<sip:7@192.168.1.20:5062>;expires=0", "*"])
def test_what_is_removed_is_forgotten_and_told(contact: str, registrar: Registrar) -> None:
    registrar.hears()
    registrar.hears(contact)
    assert registrar.kept == []
    assert registrar.told[-1][2] == ""


def test_a_query_changes_nothing(registrar: Registrar) -> None:
    registrar.hears()
    before = registrar.kept
    registrar.hears("", says=f"Contact: <{before[0].contacts[0]}>;expires=7")
    assert registrar.kept == before


def test_a_phone_has_no_more_than_so_many_contacts(registrar: Registrar) -> None:
    registrar.hears(", ".join(f"<sip:{n}@h>;expires=60" for n in range(50)))
    assert len(registrar.kept[0].contacts) == 8


# --- who it is --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"call_id": "2@h"}),
        ({}, {"user": "101"}),
        ({}, {"source": Endpoint("tcp", "198.51.100.7", 40123), "on": PUBLIC_TCP}),
        ({"contact": f"{OWN};{INSTANCE}"}, {"contact": f"{OWN};{INSTANCE.replace('1>', '2>')}"}),
        ({"contact": f"{OWN};{INSTANCE};reg-id=1"}, {"contact": f"{OWN};{INSTANCE};reg-id=2"}),
        ({"contact": f"{OWN};{INSTANCE}"}, {"contact": OWN}),
    ],
    ids=["call-id", "user", "transport", "instance", "reg-id", "no-instance"],
)
def test_two_phones(first: dict[str, object], second: dict[str, object], registrar: Registrar) -> None:
    registrar.hears(**first)
    assert len(registrar.hears(**second)) == 1
    assert len(registrar.kept) == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"source": ELSEWHERE}),
        ({}, {"source": ELSEWHERE, "contact": "<sip:7@10.0.0.9>;expires=60"}),
        ({}, {"source": PHONE._replace(port=9)}),
        ({"contact": f"{OWN};{INSTANCE}"}, {"contact": f"{OWN};{INSTANCE}", "source": ELSEWHERE, "call_id": "2@h"}),
        ({}, {"source": ELSEWHERE, "contact": "<sip:7@192.168.1.20:5062>;expires=0"}),
    ],
    ids=["elsewhere", "other-contact", "other-port", "instance", "signs-off"],
)
def test_a_phone_that_has_moved_takes_back_what_it_has_left(
    first: dict[str, object], second: dict[str, object], registrar: Registrar
) -> None:
    [left] = registrar.hears(**first)
    new, removed = registrar.hears(**second)
    assert removed == f"<{uri(left)}>;expires=0"
    assert uri(new) != uri(left)
    assert [each.flow for each in registrar.kept] == ([] if "expires=0" in new else [second["source"]])


@pytest.mark.parametrize("contact", [OWN, "<sip:8@192.168.1.20:5062>;expires=60", "*"])
def test_one_that_is_where_it_was_takes_nothing_back(contact: str, registrar: Registrar) -> None:
    registrar.hears()
    assert len(registrar.hears(contact)) == 1


def test_a_star_stands_alone(registrar: Registrar) -> None:
    registrar.hears()
    assert registrar.hears("*", ELSEWHERE) == ["*"]


# --- who needs a ping -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contact", "via", "source", "on", "pinged"),
    [
        ("sip:7@192.168.1.20:5062", "SIP/2.0/UDP 192.168.1.20:5062", PHONE, PUBLIC, True),
        ("sip:7@198.51.100.7:40123", "SIP/2.0/UDP 198.51.100.7:40123", PHONE, PUBLIC, False),
        ("sip:7@198.51.100.7:40123", "SIP/2.0/UDP 192.168.1.20", PHONE, PUBLIC, True),
        ("sip:7@198.51.100.7:40123", "SIP/2.0/UDP 198.51.100.7:5060", PHONE, PUBLIC, True),
        ("sip:7@198.51.100.7:5060", "SIP/2.0/UDP 198.51.100.7:40123", PHONE, PUBLIC, True),
        ("sip:7@198.51.100.8", "SIP / 2.0 / UDP  198.51.100.8 : 5060", ELSEWHERE, PUBLIC, False),
        ("sip:7@192.168.1.20:5062", "", PHONE._replace(transport="tcp"), PUBLIC_TCP, False),
        ("sip:7@192.168.1.99:5062", "", LAN_PHONE, PUBLIC, False),
        ("sip:[2001:db8::7]", "SIP/2.0/UDP [2001:db8::7]", Endpoint("udp", "2001:db8::7", 5060), PUBLIC6, False),
        ("sip:[2001:db8::9]", "SIP/2.0/UDP [2001:db8::7]", Endpoint("udp", "2001:db8::7", 5060), PUBLIC6, True),
    ],
)
def test_a_flow_needs_a_ping_when_a_nat_is_on_its_way(
    contact: str, via: str, source: Endpoint, on: Socket, pinged: bool, registrar: Registrar
) -> None:
    registrar.hears(f"<{contact}>;expires=60", source, on, via=via)
    assert [each.is_pinged for each in registrar.kept] == [pinged]


@pytest.mark.parametrize("text", ["", "acme x 1 udp:1.2.3.4:5 sip:a", "acme 1 1 sip:a", "acme 1 1 udp:1.2.3.4 sip:a"])
def test_what_is_no_registration_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Registration.read(text)
