"""The lab itself: what must be red is red, and the tap sees what there is to see. SIPp against SIPp, without a node."""

import subprocess
import time

import dns.resolver  # noqa: TID251
import pytest

from lab.agent import Agent
from lab.calls import expect_audio, expect_silence
from lab.dns import Dns, host, naptr, srv
from lab.eventually import PATIENCE, eventually
from lab.network import Lab, Machine
from lab.packets import Address
from lab.sipp import SippError, Transport, sipp


@pytest.fixture
def pair(own_lab: Lab) -> tuple[Machine, Machine]:
    """A phone in public, and a machine that plays its PBX on the Internet."""
    return own_lab.phone("bob"), own_lab.carrier("pbx-outside")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_a_call_is_seen_with_its_messages_and_its_audio(
    transport: Transport, ipv6: bool, pair: tuple[Machine, Machine]
) -> None:
    caller, callee = pair
    to = callee.address6 if ipv6 else callee.address
    uas = sipp(callee, "call-answered", "uas", transport=transport, ipv6=ipv6)
    sipp(caller, "call-answered", to=to, transport=transport, ipv6=ipv6, talk=1.2)
    uas.wait()
    expect_audio(caller, callee)
    seen = caller.lab.wire.messages(machine=caller.name)
    requests = [m.method for m in seen if m.status is None]
    assert requests == ["INVITE", "ACK", "BYE"]
    assert [m.status for m in seen if m.status] == [180, 200, 200]
    assert {m.transport for m in seen} == {transport}


@pytest.mark.parametrize("order", [(180, 200), (200, 180)], ids=["in-order", "overtaken"])
def test_a_180_that_the_200_has_overtaken_does_not_disturb_a_scenario(
    order: tuple[int, int], pair: tuple[Machine, Machine]
) -> None:
    """The node's workers handle the two side by side: either may come first."""
    caller, callee = pair
    with Agent(callee, to=Address(caller.address, caller.sip_port)) as agent:
        uac = sipp(caller, "call-answered", to=callee.address, talk=0.2, background=True)
        invite = agent.expect("INVITE")
        for status in order:
            agent.reply(invite, status, tag="a", body=agent.sdp() if status == 200 else "")
        agent.expect("ACK")
        agent.reply(agent.expect("BYE"), 200)
        uac.wait()


def test_a_scenario_that_waits_in_vain_is_red(pair: tuple[Machine, Machine]) -> None:
    caller, callee = pair
    with pytest.raises(SippError, match="timed out"):
        sipp(caller, "options-200", to=callee.address, timeout=1.0)
    with pytest.raises(SippError, match="timed out"):
        sipp(callee, "call-answered", "uas", timeout=1.0).wait()


def test_an_answer_that_is_not_in_the_scenario_is_red_on_both_sides(pair: tuple[Machine, Machine]) -> None:
    caller, callee = pair
    uas = sipp(callee, "busy-486", "uas")
    with pytest.raises(SippError, match="486 Busy Here"):
        sipp(caller, "call-answered", to=callee.address)
    uas.wait()


def test_a_port_that_is_taken_is_red_at_once(pair: tuple[Machine, Machine]) -> None:
    _, callee = pair
    first = sipp(callee, "call-answered", "uas")
    with pytest.raises(SippError, match="bind"):
        sipp(callee, "call-answered", "uas")
    first.abandon()


def test_audio_to_the_wrong_address_is_red(own_lab: Lab) -> None:
    """Without a node in between a phone behind a NAT tells an address that nobody can reach."""
    caller, callee = own_lab.phone("alice", behind="symmetric"), own_lab.carrier("pbx-outside")
    uas = sipp(callee, "call-answered", "uas")
    sipp(caller, "call-answered", to=callee.address, talk=1.2)
    uas.wait()
    with pytest.raises(AssertionError, match="alice heard nothing"):
        expect_audio(caller)
    with pytest.raises(AssertionError, match="pbx-outside heard nothing from where it should"):
        expect_audio(callee)


def test_audio_that_loses_every_fifth_packet_on_its_way_is_red(own_lab: Lab, pair: tuple[Machine, Machine]) -> None:
    caller, callee = pair
    loss = "udp dport 30000-30999 numgen inc mod 5 0 drop"
    rules = f"table bridge lossy {{ chain forward {{ type filter hook forward priority 0; {loss}; }}; }};"
    argv = ["nsenter", f"--net=/run/netns/{own_lab.internet}", "--", "nft", rules]
    subprocess.run(argv, check=True, timeout=PATIENCE)
    uas = sipp(callee, "call-answered", "uas")
    sipp(caller, "call-answered", to=callee.address, talk=1.2)
    uas.wait()
    with pytest.raises(AssertionError, match=r"bob heard \d+ of \d+ packets"):
        expect_audio(caller)


def test_what_has_arrived_is_seen_though_the_tap_has_had_no_turn() -> None:
    lab = Lab()  # not entered: its tap's thread does not run
    try:
        sender, receiver = lab.phone("bob"), lab.carrier()
        with sender.socket() as mouth, receiver.socket() as ear:
            ear.bind((receiver.address, 5060))
            ear.settimeout(PATIENCE)
            mouth.sendto(b"OPTIONS sip:x SIP/2.0\r\nCSeq: 1 OPTIONS\r\n\r\n", (receiver.address, 5060))
            ear.recv(1000)
        assert [(m.machine, m.direction) for m in lab.wire.messages()] == [("bob", "out"), ("carrier", "in")]
        assert lab.wire.wait_for(lambda m: m.machine == "carrier").method == "OPTIONS"
    finally:
        lab.close()


def test_silence_is_told_from_audio(pair: tuple[Machine, Machine]) -> None:
    caller, callee = pair
    uas = sipp(callee, "call-answered", "uas")
    sipp(caller, "call-answered", to=callee.address, talk=1.2)
    uas.wait()
    expect_silence(caller, callee, since=time.time(), seconds=0.5)
    (bye,) = {m.time for m in caller.lab.wire.messages(machine=caller.name, method="BYE", requests=True)}
    with pytest.raises(AssertionError, match="should hear nothing"):
        expect_silence(caller, since=bye - 1, seconds=0.5)


def test_phones_behind_two_nats_have_one_address_and_different_bindings(own_lab: Lab) -> None:
    outside = own_lab.carrier("outside")
    for kind in ("restricted", "symmetric"):
        phone = own_lab.phone(f"phone-{kind}", behind=kind)
        assert phone.address == "192.168.1.20"
        ports = set()
        with phone.socket() as sender:
            sender.bind(("", 5060))
            for port in (7001, 7002):
                with outside.socket() as receiver:
                    receiver.bind(("", port))
                    receiver.settimeout(PATIENCE)
                    sender.sendto(b"x", (outside.address, port))
                    ports.add(receiver.recvfrom(9)[1][1])
        assert (len(ports) == 1) is (kind == "restricted")


def test_the_nodes_address_on_the_link_stays_whoever_comes(own_lab: Lab) -> None:
    node = own_lab.node()

    def address() -> str:
        return node.run(["ip", "-brief", "link", "show", "service"]).split()[2]

    before = address()
    for number in range(8):  # each with an address on the link by chance, higher or lower
        own_lab.instance(f"pbx{number}")
        assert address() == before


def test_nothing_of_a_lab_is_left(own_lab: Lab) -> None:
    with Lab() as other:
        machine = other.phone("bob")
        sleeper = machine.popen(["sleep", "60"])
        eventually(lambda: sleeper.pid in other.left_behind())  # it enters its namespace by itself
    assert sleeper.poll() is not None
    assert not other.directory.exists()


def test_a_name_server_answers_changes_hangs_and_ends(own_lab: Lab) -> None:
    asker = own_lab.phone("asker")
    resolver = dns.resolver.Resolver(configure=False)
    resolver.lifetime = 0.5

    def answers(kind: str, name: str) -> list[str]:
        return asker.inside(lambda: sorted(map(str, resolver.resolve(name, kind))))

    records = host("b1.telco.example", "203.0.113.80", "2001:db8:1::80"), srv("telco.example", "b1.telco.example")
    with Dns(own_lab, records) as server:
        resolver.nameservers = [server.address]
        assert answers("A", "b1.telco.example") == ["203.0.113.80"]
        assert answers("AAAA", "b1.telco.example") == ["2001:db8:1::80"]
        assert answers("SRV", "_sip._udp.telco.example") == ["0 0 5060 b1.telco.example."]
        with pytest.raises(dns.resolver.NXDOMAIN):
            answers("A", "nobody.example")
        server.change(naptr("telco.example", "_sip._udp.telco.example"))
        assert answers("NAPTR", "telco.example") == ['10 50 "s" "SIP+D2U" "" _sip._udp.telco.example.']
        assert server.queries == ["NAPTR telco.example"]
        with server.hung(), pytest.raises(dns.resolver.LifetimeTimeout):
            answers("NAPTR", "telco.example")
        server.stop()
        with pytest.raises(dns.resolver.LifetimeTimeout):
            answers("NAPTR", "telco.example")
