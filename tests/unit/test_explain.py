"""Explanations: how a question is read, what is told of each decision, and how the command ends."""

import json
from pathlib import Path
from typing import Any

import pytest
from shell import Shell

from sipward import explain, rpc
from sipward.edge import Edge
from sipward.explain import Question, QuestionError, read, told
from sipward.live import HEALTH, RESTING, STATE, encode, encode_trunk
from sipward.model import Endpoint, Instance, Tenant, Trunk
from sipward.numbers import Plan
from sipward.seal import Sealer
from sipward.tokens import Binding
from sipward.uri import Uri
from unit.recorder import ACME, GLOBEX, KEY, LAN_PHONE, PBX, PBX2, PUBLIC6, RIVAL, SOCKETS, edge, table

CARRIER = Endpoint("udp", "203.0.113.80", 5060)
SECOND = CARRIER._replace(host="203.0.113.81")
TRUNK = Trunk("carrier", ("acme", "globex"), (CARRIER, SECOND), number="p-called-party-id")
TWO = ACME._replace(instances=(Instance(PBX), Instance(PBX2, priority=2)))
OWN = Tenant("#+390541", (Instance(RIVAL),), domain="edge.example")
NODE = edge(plan=Plan("39"))


def memory() -> dict[tuple[str, str], str]:
    """A node's shared memory: two tenants and a trunk, with numbers of theirs."""
    routes = table(TWO, GLOBEX) | {
        "@#+390541": encode(OWN),
        "#+390721405XX": "@acme",
        "#+390541": "@#+390541",
        "#+3906": "@nobody",
        "%carrier": encode_trunk(TRUNK),
        "%udp:203.0.113.80/32": "carrier",
        ">203.0.113.80": "carrier",
        ">sip.carrier.example": "carrier",
        "^10.5.4.11": "acme",
        "^10.5.4.21": "globex",
    }
    known = {"shapes": "12:10,11 7 5", "prefixes": "32"}
    return {("routes", key): value for key, value in routes.items()} | {(STATE, k): v for k, v in known.items()}


def ask(
    to: str, source: str = "198.51.100.7:40123", also: dict[tuple[str, str], str] | None = None, **fields: Any
) -> dict[str, Any]:
    entries = memory() | (also or {})
    return told(NODE, lambda table, key: entries.get((table, key)), read(source, to, **fields))


# --- questions as they are typed -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("203.0.113.5", Endpoint("udp", "203.0.113.5", 5060)),
        ("203.0.113.5:5070", Endpoint("udp", "203.0.113.5", 5070)),
        ("2001:db8::5", Endpoint("udp", "2001:db8::5", 5060)),
        ("[2001:DB8:0::5]", Endpoint("udp", "2001:db8::5", 5060)),
        ("[2001:db8::5]:5070", Endpoint("udp", "2001:db8::5", 5070)),
    ],
)
def test_a_source_is_an_address_perhaps_with_a_port(text: str, end: Endpoint) -> None:
    assert read(text, "sip:100@acme.example") == Question(end, Uri("sip", "100", "acme.example"))


def test_all_of_a_question_is_read() -> None:
    asked = read(
        "203.0.113.5", "tel:+39-0721", transport="tcp", method="message", caller="sips:7@x.example",
        headers=["P-Called-Party-ID=<sip:1@x>;a=b", "topos=0"], sdp=False,
    )  # fmt: skip
    assert asked == Question(
        Endpoint("tcp", "203.0.113.5", 5060), Uri("tel", "+39-0721", ""), "MESSAGE", Uri("sips", "7", "x.example"),
        {"p-called-party-id": "<sip:1@x>;a=b", "topos": "0"}, has_sdp=False,
    )  # fmt: skip
    assert read("203.0.113.5", "tel:1", caller="tel:+3907").caller is None


BAD = [
    ({"source": "phone.example"}, '--from = "phone.example": must be ADDRESS or ADDRESS:PORT'),
    ({"source": "203.0.113.5:sip"}, '--from = "203.0.113.5:sip": must be ADDRESS or ADDRESS:PORT'),
    ({"source": "203.0.113.5:0"}, '--from = "203.0.113.5:0"'),
    ({"source": "203.0.113.5:65536"}, '--from = "203.0.113.5:65536"'),
    ({"source": "[203.0.113.5:5060"}, '--from = "[203.0.113.5:5060"'),
    ({"source": "fe80::1%eth0"}, '--from = "fe80::1%eth0"'),
    ({"source": ""}, '--from = ""'),
    ({"to": "201"}, '--to = "201": must be a sip, sips or tel URI'),
    ({"to": "http://x"}, '--to = "http://x": must be a sip, sips or tel URI'),
    ({"caller": "alice"}, '--caller = "alice": must be a sip, sips or tel URI'),
    ({"transport": "sctp"}, '--transport = "sctp": must be udp, tcp or tls'),
    ({"method": "IN VITE"}, '--method = "IN VITE": must be a SIP method, such as INVITE'),
    ({"method": ""}, '--method = "": must be a SIP method'),
    ({"headers": ["Diversion: <sip:1@x>"]}, '--header = "Diversion: <sip:1@x>": must be NAME=VALUE'),
    ({"headers": ["=1"]}, '--header = "=1": must be NAME=VALUE'),
]


@pytest.mark.parametrize(("fields", "said"), BAD, ids=[said[:40] for _, said in BAD])
def test_a_question_that_is_none_is_refused_by_field_and_value(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(QuestionError) as refusal:
        read(**({"source": "203.0.113.5", "to": "sip:1@acme.example"} | fields))
    assert str(refusal.value).startswith(said)


# --- what is told ----------------------------------------------------------------------------------------------------


def test_a_phones_call_is_told_with_its_side_sockets_instances_and_media() -> None:
    assert ask("sip:100@acme.example") == {
        "side": "outside",
        "on": "udp:203.0.113.10:5060",
        "trunks": [],
        "decision": "relay",
        "to": "service",
        "tenant": "acme",
        "trunk": "",
        "rule": "",
        "targets": [str(PBX), str(PBX2)],
        "uri": "sip:100@acme.example",
        "socket": "udp:10.5.4.1:5060",
        "media": "direction=outside direction=service address-family=IP4 SIP-source-address "
        "endpoint-learning=heuristic strict-source replace-origin replace-session-connection rtcp-mux-demux "
        "OSRTP-accept SDES-pad RTP/AVP ICE=remove reject-ICE",
        "down": [],
    }


def test_a_refusal_is_told_with_its_code_and_reason() -> None:
    assert ask("sip:100@nobody.example") == {
        "side": "outside",
        "on": "udp:203.0.113.10:5060",
        "trunks": [],
        "decision": "answer",
        "code": 404,
        "reason": "Not Found",
        "why": "unknown-domain",
        "retry_after": 0,
        "down": [],
    }


def test_a_number_is_told_with_its_rule() -> None:
    found = ask("tel:0721-405-12")
    assert (found["tenant"], found["rule"]) == ("acme", "+390721405XX")
    assert found["uri"] == "sip:0721-405-12@acme.example;user=phone"
    found = ask("sip:0541201@edge.example")
    assert (found["tenant"], found["rule"], found["targets"]) == ("#+390541", "+390541", [str(RIVAL)])


def test_a_carriers_call_is_told_with_its_trunk_and_the_number_that_it_has_dialled() -> None:
    header = ["P-Called-Party-ID=<tel:+39 0721 405 12>"]
    found = ask("sip:account@edge.example", str(CARRIER).removeprefix("udp:"), headers=header)
    assert (found["trunk"], found["trunks"]) == ("carrier", ["carrier (+39072140512)"])
    assert (found["tenant"], found["rule"]) == ("acme", "+390721405XX")
    assert "endpoint-learning=off" in found["media"]


def test_what_a_carrier_has_dialled_is_told_even_if_it_leads_nowhere() -> None:
    found = ask("sip:072140512@edge.example", "203.0.113.80")
    assert (found["trunks"], found["why"]) == (["carrier (-)"], "unknown-number")
    found = ask("sip:x@edge.example", "203.0.113.80", headers=["p-called-party-id=sip:0999@x"])
    assert (found["trunks"], found["why"]) == (["carrier (+390999)"], "unknown-number")


def test_a_number_of_a_tenant_that_is_not_there_is_told() -> None:
    found = ask("sip:061@edge.example")
    assert (found["code"], found["why"], found["retry_after"]) == (503, "no-tenant", 10)


def test_a_call_from_an_instance_is_told_with_its_trunk() -> None:
    found = ask("sip:06@sip.carrier.example", "10.5.4.11:5080")
    assert (found["side"], found["to"], found["tenant"], found["trunk"]) == ("service", "outside", "acme", "carrier")
    assert (found["on"], found["socket"]) == ("udp:10.5.4.1:5060", "udp:203.0.113.10:5060")
    assert found["targets"] == [str(CARRIER), str(SECOND)]
    assert ask("sip:06@other.example", "10.5.4.11:5080")["why"] == "forbidden"


def test_a_call_from_an_instance_to_its_phone_is_told() -> None:
    bound = Binding("acme", LAN_PHONE, "sip:192.168.1.20:5062").seal(Sealer([KEY]))
    found = ask(f"sip:100@10.5.4.1;sw={bound}", "10.5.4.11:5080")
    assert (found["to"], found["targets"], found["uri"]) == ("local", [str(LAN_PHONE)], "sip:100@192.168.1.20:5062")


@pytest.mark.parametrize(
    ("table", "end", "to", "source", "left"),
    [
        (HEALTH, PBX, "sip:100@acme.example", "198.51.100.7", [PBX2]),
        (RESTING, CARRIER, "sip:06@203.0.113.80", "10.5.4.11:5080", [SECOND, CARRIER]),
    ],
)
def test_what_is_down_is_told_with_the_reason(
    table: str, end: Endpoint, to: str, source: str, left: list[Endpoint]
) -> None:
    found = ask(to, source, {(table, str(end)): "silent"})
    assert found["targets"] == list(map(str, left))
    assert found["down"] == [f"{end} (silent)"]


def test_when_all_are_down_they_are_named() -> None:
    found = ask("sip:100@acme.example", also={(HEALTH, str(end)): "503" for end in (PBX, PBX2)})
    assert (found["code"], found["why"]) == (503, "all-down")
    assert found["down"] == [f"{PBX} (503)", f"{PBX2} (503)"]


@pytest.mark.parametrize(
    ("to", "source", "fields", "code"),
    [
        ("sip:edge.example", "198.51.100.7", {"method": "options"}, 200),
        ("sip:1@acme.example", "198.51.100.7", {"method": "ACK"}, 481),
        ("sip:1@acme.example", "203.0.113.10", {}, 482),
    ],
)
def test_what_the_node_answers_itself_is_told(to: str, source: str, fields: dict[str, Any], code: int) -> None:
    assert ask(to, source, **fields)["code"] == code


@pytest.mark.parametrize("fields", [{"method": "MESSAGE"}, {"method": "OPTIONS"}, {"sdp": False}])
def test_what_brings_no_offer_has_no_media(fields: dict[str, Any]) -> None:
    assert ask("sip:100@acme.example", **fields)["media"] == ""


def test_a_source_that_no_socket_speaks_to_is_told() -> None:
    assert ask("sip:100@acme.example", "2001:db8::5", transport="tcp")["side"] == "none"


def test_a_target_that_no_socket_speaks_to_is_a_503() -> None:
    node: Edge = edge(sockets=[*SOCKETS[:2], PUBLIC6])
    asked = read("198.51.100.7", "sip:100@acme.example")
    assert told(node, lambda table, key: memory().get((table, key)), asked)["why"] == "no-socket"


def test_the_caller_and_the_to_header_choose_the_instance_as_they_do_on_the_wire() -> None:
    even = {("routes", key): encode(TWO._replace(policy="balance")) for key in ("acme.example", "@acme")}
    users = [str(number) for number in range(20)]
    by_user = {u: ask(f"sip:{u}@acme.example", also=even)["targets"] for u in users}
    assert len({tuple(found) for found in by_user.values()}) == 2
    for user, found in by_user.items():
        assert ask("sip:100@acme.example", also=even, caller=f"sip:{user}@acme.example")["targets"] == found
        assert ask("sip:acme.example", also=even, headers=[f"To=<sip:{user}@acme.example>"])["targets"] == found


def test_an_instance_on_the_node_is_known_by_its_contact_over_tcp() -> None:
    home = Tenant("home", (Instance(Endpoint("tcp", "10.5.4.1", 5080)),), domain="home.example")
    also = {("routes", "@home"): encode(home), ("routes", "^10.5.4.1:5080"): "home"}
    also |= {("routes", "%carrier"): encode_trunk(TRUNK._replace(tenants=("*",)))}
    fields = {"to": "sip:06@203.0.113.80", "source": "10.5.4.1:41234", "also": also, "transport": "tcp"}
    assert ask(**fields)["why"] == "forbidden"  # type: ignore[arg-type]
    assert ask(**fields, headers=["Contact=<sip:10.5.4.1:5080>"])["tenant"] == "home"  # type: ignore[arg-type]


# --- the command -----------------------------------------------------------------------------------------------------

WORDS = ("explain", "--from", "198.51.100.7", "--to", "sip:100@acme.example")


def test_without_a_node_it_is_one_line_and_exit_1(shell: Shell, tmp_path: Path) -> None:
    assert shell.fails(1, *WORDS) == f"no node runs in {tmp_path} (state_dir)"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "A B"), '--method = "A B"'),
        (("--transport", "ws"), '--transport = "ws"'),
        (("--caller", "x"), '--caller = "x"'),
        (("--header", "x"), '--header = "x"'),
    ],
)
def test_a_bad_question_is_one_line_and_exit_2(shell: Shell, words: tuple[str, ...], said: str) -> None:
    assert shell.fails(2, *WORDS, *words).startswith(f"{said}: must be ")


@pytest.fixture
def running(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A node as the command sees it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/edge.json").write_text(NODE.to_json())
    (tmp_path / "keys").write_text(KEY.hex())

    def kamailio(run: Path, method: str, *params: str) -> dict[str, Any]:
        if method == "core.uptime":
            return {}
        table, key = params
        if (value := memory().get((table, key))) is None:
            raise ValueError("No such key")
        return {"item": {"value": value}}

    monkeypatch.setattr("sipward.rpc.kamailio", kamailio)
    return shell


def test_the_running_node_answers_and_it_is_exit_0(running: Shell) -> None:
    lines = dict(line.split(maxsplit=1) for line in running.ok(*WORDS).splitlines() if " " in line)
    assert lines["targets"] == f"{PBX}, {PBX2}"
    assert lines["decision"] == "relay"
    assert json.loads(running.ok(*WORDS, "--json")) == ask("sip:100@acme.example", "198.51.100.7")


def test_all_options_reach_the_question(running: Shell) -> None:
    words = ["explain", "--from", "203.0.113.80", "--to", "sip:edge.example"]
    words += ["--header", "P-Called-Party-ID=<sip:0541@x>"]
    found = json.loads(running.ok(*words, "--no-sdp", "--caller", "tel:1", "--json"))
    assert (found["rule"], found["media"]) == ("+390541", "")
    found = json.loads(running.ok(*words, "--method", "options", "--transport", "tcp", "--json"))
    assert (found["on"], found["code"]) == ("tcp:203.0.113.10:5060", 200)


def test_a_node_that_dies_meanwhile_is_one_line(running: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(table: str, key: str) -> str:
        raise rpc.UnreachableError("kamailio: gone")

    monkeypatch.setattr(explain.rpc, "memory", lambda run: dead)
    assert running.fails(1, *WORDS).startswith("no node runs in ")
