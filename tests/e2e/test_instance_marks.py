"""What an instance may ask of the node by a header: `isTrunk: 1` and `topos: 0`. Both end here, whoever sends them."""

from collections.abc import Callable

import pytest

from lab.agent import Agent, Talk, busy_call, registered
from lab.sip import Message

from .conftest import Tenant

pytestmark = pytest.mark.usefixtures("control", "no_media_left")

type Make = Callable[..., str]
ASKED = ["isTrunk: 1", "topos: 0"]


def is_stripped(message: Message) -> bool:
    """Whether nothing is left of what was asked."""
    head = message.head.lower()
    return "istrunk" not in head and "topos" not in head


@pytest.fixture(params=["to a carrier", "to a phone"])
def call(
    request: pytest.FixtureRequest, trunk: Make, acme: Tenant, carrier: Agent, phone: Agent, instance: Agent
) -> tuple[Agent, str]:
    """Whom an instance may call, and by which URI."""
    if request.param == "to a phone":
        return phone, registered(phone, instance, acme.domain)
    trunk(carrier.host, tenants=[acme.name])
    return carrier, f"sip:0541201123@{carrier.host}"


@pytest.mark.parametrize("spelling", ["isTrunk: 1", "istrunk : 1", "ISTRUNK:\r\n 1", "isTrunk\t:1"])
def test_a_leg_without_srtp_is_asked_for_and_the_header_ends_here(
    spelling: str, call: tuple[Agent, str], instance: Agent
) -> None:
    callee, uri = call
    ours = instance.begin("INVITE", uri, body=instance.sdp(), headers=[spelling])
    invite = callee.expect("INVITE")
    assert is_stripped(invite)
    assert " RTP/AVP " in invite.body
    callee.reply(invite, 200, tag="callee", body=callee.sdp())
    ours.learn(instance.expect(200)).send("ACK", headers=[spelling])
    assert is_stripped(callee.expect("ACK"))
    ours.send("INFO", headers=[spelling])
    info = callee.expect("INFO")
    assert is_stripped(info)
    callee.reply(info, 200)
    instance.expect(200)
    ours.hang_up(callee)


@pytest.mark.parametrize("spelling", ["topos: 0", "TOPOS:0", "topos :\r\n 0"])
@pytest.mark.may_show_in("10.5.4.", "Via", "Contact", "From", "To")
def test_a_call_without_topology_hiding_shows_the_instances_own_contact(
    spelling: str, call: tuple[Agent, str], instance: Agent
) -> None:
    callee, uri = call
    ours = instance.begin("INVITE", uri, body=instance.sdp(), headers=[spelling])
    invite = callee.expect("INVITE")
    assert is_stripped(invite)
    assert invite.headers("Contact") == [ours.contact]
    assert invite.media is not None
    assert invite.media.host == callee.node.host, "its audio still goes by us"
    theirs = Talk.answering(callee, invite, "callee")
    callee.reply(invite, 200, tag="callee", body=callee.sdp())
    ours.learn(instance.expect(200)).ack()
    callee.expect("ACK")
    theirs.hang_up(instance)


def test_without_being_asked_every_call_is_hidden(call: tuple[Agent, str], instance: Agent) -> None:
    callee, uri = call
    for headers in ([], ["topos: 1"], ["topos: 00"], ["x-topos: 0"]):
        ours = instance.begin("INVITE", uri, body=instance.sdp(), headers=headers)
        invite = callee.expect("INVITE")
        assert is_stripped(invite) or headers == ["x-topos: 0"]
        assert invite.headers("Contact") != [ours.contact]
        callee.reply(invite, 486, tag="busy")
        callee.expect("ACK")
        instance.acknowledge(instance.expect(486))


def test_what_the_outside_asks_is_not_done(
    trunk: Make, acme: Tenant, carrier: Agent, phone: Agent, instance: Agent
) -> None:
    """The search of all that left for inner addresses, which follows every test, says that the call was hidden."""
    trunk(carrier.host, tenants=[acme.name])
    for caller in (carrier, phone):
        ours = caller.begin("INVITE", f"sip:200@{acme.domain}", body=caller.sdp(), headers=ASKED)
        invite = instance.expect("INVITE")
        assert is_stripped(invite)
        instance.reply(invite, 200, tag="callee", body=instance.sdp(), headers=ASKED)
        ok = caller.expect(200)
        assert instance.host not in ok.text
        ours.learn(ok).ack()
        instance.expect("ACK")
        ours.hang_up(instance)


@pytest.mark.may_show_in("10.5.4.", "Via", "Contact", "From", "To")
def test_one_call_that_shows_itself_shows_no_other(
    trunk: Make, acme: Tenant, initech: Tenant, carrier: Agent, instance: Agent, other_instance: Agent
) -> None:
    trunk(carrier.host, tenants=[acme.name, initech.name])
    uri = f"sip:0541201123@{carrier.host}"
    for agent, headers in ((instance, ASKED), (other_instance, []), (instance, []), (other_instance, ASKED)):
        invite = busy_call(agent, carrier, uri, headers=headers)
        assert (agent.host in invite.header("Contact")) == bool(headers)
