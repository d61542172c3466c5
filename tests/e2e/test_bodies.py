"""Bodies: what an SDP may look like on its way in, and what no body says of the inside on its way out."""

import pytest

from lab.agent import Agent, Talk, registered

from .conftest import Tenant

INNER = "10.5.4.11"
REMARKS = f"s=PBX at {INNER}\r\ni=from {INNER}\r\nu=http://{INNER}/\r\n"
ATTRIBUTES = f"a=x-nat:{INNER}\r\na=source-filter: incl IN IP4 * {INNER}\r\n"
MSRP = f"m=message 2855 TCP/MSRP *\r\nc=IN IP4 {INNER}\r\na=path:msrp://{INNER}:2855/x;tcp\r\n"


def without_length(text: str) -> str:
    return "".join(f"{line}\r\n" for line in text.split("\r\n") if not line.startswith("Content-Length")).rstrip("\r\n")


def full_of_addresses(agent: Agent) -> str:
    return agent.sdp().replace("s=-\r\n", REMARKS) + ATTRIBUTES + MSRP


def clean(body: str) -> None:
    assert INNER not in body
    assert "m=audio" in body
    assert "203.0.113.10" in body


def test_an_invite_over_udp_needs_no_content_length(phone: Agent, instance: Agent, acme: Tenant) -> None:
    """RFC 3261, 18.3: the body ends with the datagram."""
    plain = phone.compose
    phone.compose = lambda *args, **more: without_length(plain(*args, **more)) + "\r\n"  # type: ignore[method-assign]
    ours = phone.begin("INVITE", f"sip:200@{acme.domain}", body=phone.sdp(), domain=acme.domain)
    phone.compose = plain  # type: ignore[method-assign]
    invite = instance.expect("INVITE")
    assert "c=IN IP4 10.5.4.1\r\n" in invite.body
    send = instance.send
    instance.send = lambda text: send(without_length(str(text)) + "\r\n")  # type: ignore[method-assign]
    instance.reply(invite, 200, tag="i", body=instance.sdp())
    instance.send = send  # type: ignore[method-assign]
    answer = phone.expect(200)
    assert "c=IN IP4 203.0.113.10\r\n" in answer.body
    assert "m=audio 0 " not in answer.body
    ours.learn(answer).ack()
    instance.expect("ACK")
    ours.hang_up(instance)


def test_a_content_type_without_a_body_is_no_offer(phone: Agent, instance: Agent, acme: Tenant) -> None:
    phone.begin("INVITE", f"sip:200@{acme.domain}", headers=["Content-Type: application/sdp"], domain=acme.domain)
    invite = instance.expect("INVITE")
    assert not invite.body
    instance.reply(invite, 486, tag="i")
    phone.acknowledge(phone.expect(486))


@pytest.mark.parametrize("role", ["offer", "answer", "late-offer"])
def test_no_line_of_an_instances_sdp_names_the_inside(role: str, phone: Agent, instance: Agent, acme: Tenant) -> None:
    if role == "offer":
        bound = registered(phone, instance, acme.domain)
        instance.begin("INVITE", bound, body=full_of_addresses(instance), domain=acme.domain)
        invite = phone.expect("INVITE")
        clean(invite.body)
        phone.reply(invite, 486, tag="p")
        instance.acknowledge(instance.expect(486))
        return
    body = phone.sdp() if role == "answer" else ""
    ours = phone.begin("INVITE", f"sip:200@{acme.domain}", body=body, domain=acme.domain)
    instance.reply(instance.expect("INVITE"), 200, tag="i", body=full_of_addresses(instance))
    answer = phone.expect(200)
    clean(answer.body)
    ours.learn(answer).ack("" if body else phone.sdp())
    instance.expect("ACK")
    ours.hang_up(instance)


def test_a_multipart_body_keeps_its_other_parts(phone: Agent, instance: Agent, acme: Tenant) -> None:
    other = "--x\r\nContent-Type: application/pidf+xml\r\n\r\n<presence/>\r\n"
    body = f"{other}--x\r\nContent-Type: application/sdp\r\n\r\n{phone.sdp()}\r\n--x--\r\n"
    plain = phone.compose

    def compose(first: str, fields: list[str], text: str = "", via: str = "") -> str:
        kind = "Content-Type: multipart/mixed;boundary=x"
        return plain(first, fields, text, via).replace(
            "Content-Type: application/sdp\r\nContent-L", f"{kind}\r\nContent-L"
        )

    phone.compose = compose  # type: ignore[method-assign, assignment]
    phone.begin("INVITE", f"sip:200@{acme.domain}", body=body, domain=acme.domain)
    phone.compose = plain  # type: ignore[method-assign]
    invite = instance.expect("INVITE")
    assert invite.header("Content-Type") == "multipart/mixed;boundary=x"
    assert other in invite.body
    assert "c=IN IP4 10.5.4.1\r\n" in invite.body
    assert phone.host not in invite.body
    instance.reply(invite, 486, tag="i")
    phone.acknowledge(phone.expect(486))


def test_parts_of_which_none_is_a_description_are_passed_on(phone: Agent, instance: Agent, acme: Tenant) -> None:
    body = "--x\r\nContent-Type: application/pidf+xml\r\n\r\n<presence/>\r\n--x--\r\n"
    plain = phone.compose

    def compose(first: str, fields: list[str], text: str = "", via: str = "") -> str:
        return plain(first, fields, text, via).replace(": application/sdp", ": multipart/mixed;boundary=x")

    phone.compose = compose  # type: ignore[method-assign, assignment]
    phone.begin("INVITE", f"sip:200@{acme.domain}", body=body, domain=acme.domain)
    phone.compose = plain  # type: ignore[method-assign]
    invite = instance.expect("INVITE")
    assert invite.body == body
    instance.reply(invite, 486, tag="i")
    phone.acknowledge(phone.expect(486))


@pytest.mark.parametrize("method", ["MESSAGE", "NOTIFY", "OPTIONS"])
def test_a_body_outside_offer_and_answer_names_no_inner_address(
    method: str, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    bound = registered(phone, instance, acme.domain)
    text = f"Messages-Waiting: yes\r\nMessage-Account: sip:asterisk@{INNER}\r\n"
    instance.begin(method, bound, body=text, domain=acme.domain, headers=["Event: message-summary"])
    request = phone.expect(method)
    assert request.body == text.replace(INNER, acme.domain)
    phone.reply(request, 200, tag="p")
    instance.expect(200)


def test_a_redirection_to_a_telephone_number_reaches_the_caller(phone: Agent, instance: Agent, acme: Tenant) -> None:
    phone.begin("INVITE", f"sip:200@{acme.domain}", domain=acme.domain)
    instance.reply(instance.expect("INVITE"), 302, tag="i", contact="<tel:+390721123>")
    instance.expect("ACK")
    answer = phone.expect(302)
    assert answer.header("Contact") == "<tel:+390721123>"
    phone.acknowledge(answer)


def test_another_call_is_named_to_each_side_as_that_side_knows_it(phone: Agent, instance: Agent, acme: Tenant) -> None:
    """Attended transfer (RFC 3515, 3891) with a PBX that writes its address into Call-IDs."""
    call_id = f"abc@{INNER}"
    bound = registered(phone, instance, acme.domain)
    theirs = instance.begin("INVITE", bound, body=instance.sdp(), domain=acme.domain, call_id=call_id)
    invite = phone.expect("INVITE")
    ours = Talk.answering(phone, invite, "p")
    assert ours.call_id != call_id
    phone.reply(invite, 200, tag="p", body=phone.sdp())
    theirs.learn(instance.expect(200)).ack()
    phone.expect("ACK")
    ours.send("REFER", headers=[f"Refer-To: <{ours.target}?Replaces={ours.call_id}%3Bto-tag%3Da%3Bfrom-tag%3Db>"])
    refer = instance.expect("REFER")
    assert "Replaces=abc%4010.5.4.11%3Bto-tag%3Da" in refer.header("Refer-To")
    assert instance.hostport in refer.header("Refer-To")
    instance.reply(refer, 202)
    phone.expect(202)
    theirs.send("REFER", headers=[f"Refer-To: <sip:300@{INNER}?Replaces=abc%40{INNER}%3Bto-tag%3Da>"])
    refer = phone.expect("REFER")
    assert f"Replaces={ours.call_id}%3Bto-tag%3Da" in refer.header("Refer-To")
    phone.reply(refer, 202)
    instance.expect(202)
    theirs.hang_up(phone)
