"""One Call-ID, several dialogs: the end of one leaves the media of the others alone (RFC 3261, 12.1, 13.2.2.4)."""

from dataclasses import replace

import pytest

from lab.agent import Agent, Talk, answered_call, registered
from lab.network import Machine
from lab.node import Node

from .conftest import Tenant


def media_of(node: Node, tenant: Tenant) -> list[str]:
    """The calls of one tenant in rtpengine."""
    return [name for name in node.media_calls() if name.startswith(f"{tenant.name}/")]


def test_a_pbx_that_forks_one_invite_to_two_phones_loses_no_audio_when_one_is_cancelled(
    node: Node, phone: Agent, instance: Agent, acme: Tenant, rob: Machine
) -> None:
    with Agent(rob) as other:
        first = registered(phone, instance, acme.domain)
        second = registered(other, instance, acme.domain)
        taken = instance.begin("INVITE", first, body=instance.sdp(), domain=acme.domain, routes=[instance.route])
        lost = replace(taken, target=second, branches={}, cseq=0)
        lost.send("INVITE", body=instance.sdp())
        invite, cancelled = phone.expect("INVITE"), other.expect("INVITE")
        assert len(media_of(node, acme)) == 2
        phone.reply(invite, 200, tag="a", body=phone.sdp())
        taken.learn(instance.expect(200)).ack()
        phone.expect("ACK")
        other.reply(cancelled, 180, tag="b")
        instance.expect(180)
        lost.send("CANCEL")
        instance.expect(200)
        other.reply(other.expect("CANCEL"), 200)
        other.reply(cancelled, 487, tag="b")
        other.expect("ACK")
        instance.acknowledge(instance.expect(487))
        assert len(media_of(node, acme)) == 1
        taken.hang_up(phone)
        assert not media_of(node, acme)


def test_a_second_invite_with_the_call_id_of_a_call_ends_nothing_when_it_is_refused(
    node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    ours, _ = answered_call(phone, instance, f"sip:200@{acme.domain}", domain=acme.domain)
    phone.begin("INVITE", f"sip:200@{acme.domain}", body=phone.sdp(), domain=acme.domain, call_id=ours.call_id)
    instance.reply(instance.expect("INVITE"), 482, tag="m")
    instance.expect("ACK")
    phone.acknowledge(phone.expect(482))
    assert len(media_of(node, acme)) == 1
    ours.hang_up(instance)
    assert not media_of(node, acme)


@pytest.mark.parametrize("status", [401, 500])
def test_a_bye_that_is_refused_leaves_the_call_and_its_media(
    status: int, node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    ours, _ = answered_call(phone, instance, f"sip:200@{acme.domain}", domain=acme.domain)
    ours.send("BYE")
    instance.reply(instance.expect("BYE"), status)
    phone.expect(status)
    assert len(media_of(node, acme)) == 1
    ours.hang_up(instance)
    assert not media_of(node, acme)


def test_a_bye_to_a_dialog_that_the_callee_does_not_know_ends_the_media(
    node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    ours, _ = answered_call(phone, instance, f"sip:200@{acme.domain}", domain=acme.domain)
    ours.send("BYE")
    instance.reply(instance.expect("BYE"), 481)
    phone.expect(481)
    assert not media_of(node, acme)


@pytest.mark.parametrize("hangs_up", ["caller", "callee"])
@pytest.mark.parametrize("offers", ["caller", "callee"])
def test_a_call_of_which_two_forks_have_spoken_leaves_no_media(
    offers: str, hangs_up: str, node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    late = offers == "callee"
    ours = phone.begin("INVITE", f"sip:200@{acme.domain}", body="" if late else phone.sdp())
    invite = instance.expect("INVITE")
    instance.reply(invite, 183, tag="a", body=instance.sdp())
    phone.expect(183)
    theirs = Talk.answering(instance, invite, "b")
    instance.reply(invite, 200, tag="b", body=instance.sdp())
    ours.learn(phone.expect(200)).ack(body=phone.sdp() if late else "")
    instance.expect("ACK")
    if hangs_up == "caller":
        ours.hang_up(instance)
    else:
        theirs.hang_up(phone)
    assert not media_of(node, acme)
