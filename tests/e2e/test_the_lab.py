"""The lab itself: what must be red is red, and the tap sees what there is to see. SIPp against SIPp, without a node."""

import time

import pytest

from lab.calls import expect_audio, expect_silence
from lab.eventually import PATIENCE, eventually
from lab.network import Lab, Machine
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


def test_nothing_of_a_lab_is_left(own_lab: Lab) -> None:
    with Lab() as other:
        machine = other.phone("bob")
        sleeper = machine.popen(["sleep", "60"])
        eventually(lambda: sleeper.pid in other.left_behind())  # it enters its namespace by itself
    assert sleeper.poll() is not None
    assert not other.directory.exists()
