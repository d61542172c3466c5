"""Calls of an instance by a carrier: only by a trunk that serves its tenant, and as the instance wrote them."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace

import pytest

from lab.agent import Agent, Listener, Talk, answered_call, busy_call, refused_call
from lab.calls import expect_audio
from lab.network import Lab, Machine
from lab.node import Node
from lab.sipp import sipp

from .conftest import Tenant

pytestmark = pytest.mark.usefixtures("control", "no_media_left")

type Make = Callable[..., str]


@pytest.fixture(params=["pbx", "pbx_on_node"])
def caller(request: pytest.FixtureRequest) -> Iterator[Agent]:
    """An instance: on a host of its own, and on the node itself, where its port tells it from others."""
    with Agent(request.getfixturevalue(request.param)) as agent:
        yield agent


@pytest.fixture
def office(tenant: Callable[..., Tenant], caller: Agent) -> Tenant:
    """The tenant of that instance."""
    return tenant(caller.machine)


@pytest.fixture
def neighbour(lab: Lab, tenant: Callable[..., Tenant]) -> Iterator[Agent]:
    """Another tenant's instance on the node itself."""
    machine = lab.instance_on_node("pbx-on-node-2")
    tenant(machine)
    with Agent(machine) as agent:
        yield agent


# --- to whom ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["pbx", "pbx_on_node"])
@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_a_carrier_that_asks_for_a_password_is_called_and_heard_both_ways(
    where: str, ipv6: bool, tenant: Callable[..., Tenant], trunk: Make, telco: Machine, request: pytest.FixtureRequest
) -> None:
    instance: Machine = request.getfixturevalue(where)
    trunk(telco.address6 if ipv6 else telco.address, tenants=[tenant(instance).name])
    host = f"[{telco.address6}]" if ipv6 else telco.address
    keys = {"user": "account-17", "password": "sesame", "domain": host, "callee": "0541201123"}
    target = f"sip:0541201123@{host};user=phone"
    carrier = sipp(telco, "proxy-auth-407", "uas", ipv6=ipv6, keys=keys)
    own_uri = ["-auth_uri", target.removeprefix("sip:")]  # SIPp would write the next hop's address
    sipp(instance, "proxy-auth-407", keys=keys | {"target": target}, talk=1.3, options=own_uri)
    carrier.wait()
    saved = carrier.saved
    assert saved["uri"] == target
    secret, asked = md5(f"{keys['user']}:{host}:{keys['password']}"), md5(f"INVITE:{saved['digest_uri']}")
    assert saved["response"] == md5(f"{secret}:{saved['nonce']}:{asked}"), "RFC 2617, 3.2.2.1"
    expect_audio(telco, instance)


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_the_carrier_gets_what_the_instance_wrote(
    transport: str, caller: Agent, office: Tenant, trunk: Make, carrier: Agent
) -> None:
    """A Request-URI of many forms, all of them the carrier's to read."""
    with Listener(carrier.machine) if transport == "tcp" else nullcontext(carrier) as border:
        trunk(carrier.host, transport=transport, tenants=[office.name])
        for uri in (
            f"sip:0541201123@{carrier.host}",
            f"sip:+390541201123@{carrier.host}:5060;user=phone",
            f"sip:0541201123;npdi@{carrier.host};transport=udp;x-own=1",
            f"sip:{carrier.host}",
        ):
            for routes in ([], [caller.route]):
                invite = busy_call(caller, border, uri, routes=routes)
                assert invite.uri == uri
                assert not invite.headers("Route")
                assert invite.source.host == caller.machine.lab.edge(carrier.machine)


def test_a_trunk_has_more_names_than_addresses(caller: Agent, office: Tenant, trunk: Make, carrier: Agent) -> None:
    trunk(carrier.host, tenants=[office.name], hosts=["sip.telco.example", "ims.telco.example"])
    for host in ("sip.telco.example", "SIP.Telco.Example.", "ims.telco.example:5070"):
        assert busy_call(caller, carrier, f"sip:0541201123@{host}").uri == f"sip:0541201123@{host}"
    refused_call(caller, "sip:0541201123@other.telco.example", 403)


@pytest.mark.usefixtures("office", "initech")
def test_nobody_calls_by_a_trunk_of_others(
    caller: Agent, other_instance: Agent, neighbour: Agent, trunk: Make, carrier: Agent, office: Tenant, lab: Lab
) -> None:
    trunk(carrier.host, tenants=[office.name])
    uri = f"sip:0541201123@{carrier.host}"
    busy_call(caller, carrier, uri)
    with Agent(lab.instance("stranger")) as stranger:
        for agent in (other_instance, neighbour, stranger):
            refused_call(agent, uri, 403, routes=[agent.route])
            agent.begin("REGISTER", f"sip:{carrier.host}")
            agent.expect(403)
    assert not carrier.has_something()
    busy_call(caller, carrier, uri)


def test_the_port_that_a_neighbour_writes_is_not_its_own(
    trunk: Make, carrier: Agent, tenant: Callable[..., Tenant], pbx_on_node: Machine, neighbour: Agent
) -> None:
    """Instances on the node share its address: what one of them writes makes it nobody else."""
    with Agent(pbx_on_node) as owner:
        trunk(carrier.host, tenants=[tenant(pbx_on_node).name])
        uri = f"sip:0541201123@{carrier.host}"
        neighbour.begin("INVITE", uri, body=neighbour.sdp(), contact=f"<sip:x@{owner.hostport}>")
        neighbour.acknowledge(neighbour.expect(403))
        assert not carrier.has_something()
        busy_call(owner, carrier, uri)


def test_a_host_of_no_trunk_is_forbidden(
    caller: Agent, office: Tenant, trunk: Make, carrier: Agent, other_carrier: Agent
) -> None:
    name = trunk(carrier.host, tenants=[office.name])
    for host in (other_carrier.host, "sip.telco.example", "198.51.100.1", f"[{carrier.machine.address6}]", "127.0.0.1"):
        refused_call(caller, f"sip:0541201123@{host}", 403, routes=[caller.route])
        refused_call(caller, f"sip:0541201123@{host};maddr={carrier.host}", 403, routes=[f"<sip:{carrier.host};lr>"])
    assert not other_carrier.has_something()
    busy_call(caller, carrier, f"sip:0541201123@{carrier.host}")
    assert name


def test_a_shared_trunk_serves_all(
    caller: Agent, office: Tenant, initech: Tenant, trunk: Make, carrier: Agent, other_instance: Agent, neighbour: Agent
) -> None:
    trunk(carrier.host)
    for agent in (caller, other_instance, neighbour):
        busy_call(agent, carrier, f"sip:0541201123@{carrier.host}")
    assert office.name != initech.name


def test_a_trunk_that_is_gone_leaves_its_calls(
    caller: Agent, office: Tenant, trunk: Make, carrier: Agent, node: Node
) -> None:
    name = trunk(carrier.host, tenants=[office.name])
    ours, _ = answered_call(caller, carrier, f"sip:0541201123@{carrier.host}")
    node.trunk_remove(name)
    refused_call(caller, f"sip:0541201123@{carrier.host}", 403)
    ours.hang_up(carrier)


def test_nobody_outside_calls_by_a_trunk(
    office: Tenant, trunk: Make, carrier: Agent, phone: Agent, other_carrier: Agent
) -> None:
    trunk(carrier.host, hosts=["sip.telco.example"])
    trunk(other_carrier.host)
    for host in (carrier.host, "sip.telco.example"):
        for stranger in (phone, other_carrier):
            refused_call(stranger, f"sip:0900@{host}", 404, routes=[f"<sip:{carrier.host};lr>"])
    assert not carrier.has_something()
    assert office


# --- what passes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "challenge", "credentials"),
    [(401, "WWW-Authenticate", "Authorization"), (407, "Proxy-Authenticate", "Proxy-Authorization")],
)
def test_a_challenge_and_its_answer_pass(
    status: int, challenge: str, credentials: str, caller: Agent, office: Tenant, trunk: Make, carrier: Agent
) -> None:
    trunk(carrier.host, tenants=[office.name])
    uri = f"sip:0541201123@{carrier.host}"
    asked = 'Digest realm="telco.example", nonce="1f", qop="auth", algorithm=MD5'
    said = f'Digest username="account-17", realm="telco.example", nonce="1f", uri="{uri}", response="00ff"'
    ours = caller.begin("INVITE", uri, body=caller.sdp())
    invite = carrier.expect("INVITE")
    assert not invite.headers(credentials)
    carrier.reply(invite, status, tag="c", headers=[f"{challenge}: {asked}"])
    carrier.expect("ACK")
    answer = caller.expect(status)
    assert answer.headers(challenge) == [asked]
    caller.acknowledge(answer)
    ours.send("INVITE", headers=[f"{credentials}: {said}"], body=caller.sdp())
    invite = carrier.expect("INVITE")
    assert invite.headers(credentials) == [said]
    carrier.reply(invite, 200, tag="callee", body=carrier.sdp())
    ours.learn(caller.expect(200)).ack()
    carrier.expect("ACK")
    ours.hang_up(carrier)


def test_a_carrier_may_write_all_vias_into_one_line(caller: Agent, office: Tenant, trunk: Make, carrier: Agent) -> None:
    """RFC 3261, 7.3.1; and an answer with a Via too many is thrown away by whom it is for (8.1.3.3)."""
    trunk(carrier.host, tenants=[office.name])
    caller.begin("INVITE", f"sip:0541201123@{carrier.host}", body=caller.sdp())
    invite = carrier.expect("INVITE")
    vias = invite.headers("Via")
    lines = [line for line in invite.text.split("\r\n") if not line.startswith("Via:")]
    for status in (180, 486):
        carrier.reply(
            replace(invite, text="\r\n".join([lines[0], f"Via: {', '.join(vias)}", *lines[1:]])), status, tag="c"
        )
        answer = caller.expect(status)
        (via,) = answer.headers("Via")
        assert via.startswith(f"SIP/2.0/UDP {caller.hostport};")
        assert "," not in via
    carrier.expect("ACK")
    caller.acknowledge(answer)


WHO = [
    "P-Asserted-Identity: <sip:+390721405201@acme.example>", "P-Preferred-Identity: <sip:201@acme.example>",
    "Privacy: id",
]  # fmt: skip


@pytest.mark.parametrize("identity", ["pass", "remove"])
def test_what_an_instance_asserts_reaches_a_carrier_if_its_tenant_says_so(
    identity: str, tenant: Callable[..., Tenant], pbx: Machine, initech: Tenant, instance: Agent, trunk: Make,
    carrier: Agent, other_instance: Agent,
) -> None:  # fmt: skip
    trunk(carrier.host)
    tenant(pbx, identity=identity)
    uri = f"sip:0541201123@{carrier.host}"
    invite = busy_call(instance, carrier, uri, headers=WHO)
    asserted = [line for line in WHO if line in invite.text.split("\r\n")]
    assert asserted == (WHO if identity == "pass" else [])
    for name in ("P-Asserted-Identity", "P-Preferred-Identity", "Privacy"):
        assert len(invite.headers(name)) == (1 if identity == "pass" else 0)
    invite = busy_call(other_instance, carrier, uri, headers=WHO)
    assert all(line in invite.text.split("\r\n") for line in WHO)
    assert initech


def test_the_caller_is_whom_the_instance_says(caller: Agent, office: Tenant, trunk: Make, carrier: Agent) -> None:
    """A carrier knows its customer by From; a PBX may write the carrier's own host there, or its tenant's."""
    trunk(carrier.host, tenants=[office.name])
    for domain in (carrier.host, office.domain, "anonymous.invalid"):
        talk = caller.begin("INVITE", f"sip:0541201123@{carrier.host}", user="account-17", domain=domain)
        invite = carrier.expect("INVITE")
        assert invite.header("From") == talk.local
        carrier.reply(invite, 486, tag="busy")
        carrier.expect("ACK")
        caller.acknowledge(caller.expect(486))


@pytest.mark.parametrize("method", ["OPTIONS", "MESSAGE", "SUBSCRIBE", "PUBLISH"])
def test_other_requests_go_by_the_trunk_too(
    method: str, caller: Agent, office: Tenant, trunk: Make, carrier: Agent
) -> None:
    trunk(carrier.host, tenants=[office.name])
    caller.begin(method, f"sip:0541201123@{carrier.host}")
    got = carrier.expect(method)
    assert got.uri == f"sip:0541201123@{carrier.host}"
    carrier.reply(got, 480, tag="c")
    caller.expect(480)


# --- how it ends -----------------------------------------------------------------------------------------------------


def test_either_end_hangs_up(caller: Agent, office: Tenant, trunk: Make, carrier: Agent) -> None:
    trunk(carrier.host, tenants=[office.name])
    uri = f"sip:0541201123@{carrier.host}"
    ours, theirs = answered_call(caller, carrier, uri)
    ours.hang_up(carrier)
    ours, theirs = answered_call(caller, carrier, uri)
    theirs.hang_up(caller)


def test_the_carriers_second_border_hangs_up(
    caller: Agent, office: Tenant, trunk: Make, carrier: Agent, second_border: Agent, other_carrier: Agent
) -> None:
    trunk(carrier.host, second_border.host, tenants=[office.name])
    trunk(other_carrier.host)
    _, theirs = answered_call(caller, carrier, f"sip:0541201123@{carrier.host}")
    replace(theirs, agent=other_carrier, branches={}).send("BYE", cseq=9)
    other_carrier.expect(403)
    replace(theirs, agent=second_border, branches={}).hang_up(caller)


def test_a_call_out_is_cancelled(caller: Agent, office: Tenant, trunk: Make, carrier: Agent) -> None:
    trunk(carrier.host, tenants=[office.name])
    ours = caller.begin("INVITE", f"sip:0541201123@{carrier.host}", body=caller.sdp())
    invite = carrier.expect("INVITE")
    carrier.reply(invite, 180, tag="c")
    caller.expect(180)
    ours.send("CANCEL", cseq=1)
    carrier.reply(carrier.expect("CANCEL"), 200)
    caller.expect(200)
    carrier.reply(invite, 487, tag="c")
    carrier.expect("ACK")
    caller.acknowledge(caller.expect(487))


# --- a carrier that leads back to us ---------------------------------------------------------------------------------


@pytest.fixture(params=["plain", "with an inner address"])
def call_id(request: pytest.FixtureRequest, instance: Agent) -> str:
    """The caller's Call-ID; one with an inner address in it has another name outside."""
    return f"hairpin-{instance.port}" + (f"@{instance.host}" if "inner" in request.param else "")


@pytest.mark.parametrize("first", ["caller", "callee"])
@pytest.mark.parametrize("shared", [True, False], ids=["one trunk", "a trunk each"])
def test_two_tenants_call_each_other_by_a_carrier_that_gives_call_id_and_from_tag_back(
    first: str, shared: bool, call_id: str, acme: Tenant, initech: Tenant, number: Make, trunk: Make, carrier: Agent,
    instance: Agent, other_instance: Agent,
) -> None:  # fmt: skip
    number("0541201123", tenant=initech.name)
    for tenants in [[acme.name, initech.name]] if shared else [[acme.name], [initech.name]]:
        trunk(carrier.host, tenants=tenants)
    uri = f"sip:0541201123@{carrier.host}"
    caller = instance.begin("INVITE", uri, body=instance.sdp(), call_id=call_id)
    out = carrier.expect("INVITE")
    outward = Talk.answering(carrier, out, "carrier-1")
    tag = out.header("From").partition(";tag=")[2]
    inward = carrier.begin("INVITE", f"sip:0541201123@{carrier.node}", body=carrier.sdp(), call_id=out.call_id, tag=tag)
    into = other_instance.expect("INVITE")
    callee = Talk.answering(other_instance, into, "callee")
    other_instance.reply(into, 200, tag="callee", body=other_instance.sdp())
    inward.learn(carrier.expect(200)).ack()
    other_instance.expect("ACK")
    carrier.reply(out, 200, tag="carrier-1", body=carrier.sdp())
    caller.learn(instance.expect(200)).ack()
    carrier.expect("ACK")
    if first == "caller":
        caller.hang_up(carrier)
        inward.hang_up(other_instance)
    else:
        callee.hang_up(carrier)
        outward.hang_up(instance)


def test_audio_crosses_a_carrier_that_leads_back_to_us(
    acme: Tenant, initech: Tenant, number: Make, trunk: Make, carrier: Agent, pbx: Machine, lab: Lab
) -> None:
    """The two legs share Call-ID and From-tag, and each has media of its own."""
    number("0541201123", tenant=initech.name)
    trunk(carrier.host, tenants=[acme.name, initech.name])
    callee = sipp(lab.instance("pbx2"), "call-answered", "uas")
    caller = sipp(
        pbx, "call-from-instance", keys={"callee": "0541201123", "target": f"sip:0541201123@{carrier.host}"},
        talk=1.5, background=True,
    )  # fmt: skip
    out = carrier.expect("INVITE")
    tag = out.header("From").partition(";tag=")[2]
    inward = carrier.begin("INVITE", f"sip:0541201123@{carrier.node}", body=out.body, call_id=out.call_id, tag=tag)
    carrier.expect(180)
    ok = carrier.expect(200)
    carrier.reply(out, 200, tag="carrier", body=ok.body)
    carrier.expect("ACK")
    inward.learn(ok).ack()
    carrier.reply(carrier.expect("BYE", timeout=5.0), 200)
    inward.send("BYE")
    carrier.expect(200)
    caller.wait()
    callee.wait()
    expect_audio(pbx, callee.machine)


def test_a_call_that_a_second_border_took_goes_on_when_the_trunk_is_removed(
    node: Node, trunk: Make, acme: Tenant, instance: Agent, carrier: Agent, second_border: Agent
) -> None:
    name = trunk(carrier.host, second_border.host, tenants=[acme.name])
    ours = instance.begin("INVITE", f"sip:054@{carrier.host}", body=instance.sdp())
    carrier.reply(carrier.expect("INVITE"), 503, tag="i")
    carrier.expect("ACK")
    invite = second_border.expect("INVITE")
    theirs = Talk.answering(second_border, invite, "s")
    second_border.reply(invite, 200, tag="s", body=carrier.sdp())
    ours.learn(instance.expect(200)).ack()
    second_border.expect("ACK")
    node.trunk_remove(name)
    ours.send("INFO")
    second_border.reply(second_border.expect("INFO"), 200)
    instance.expect(200)
    theirs.hang_up(instance)
