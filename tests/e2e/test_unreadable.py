"""What cannot be read is refused, and leaves nothing behind: no place in use, no instance left out, no line unread."""

from collections.abc import Callable

import pytest

from lab.agent import Agent, busy_call
from lab.network import Machine
from lab.node import Node

from .conftest import Tenant

pytestmark = pytest.mark.usefixtures("control", "no_media_left")

type Make = Callable[..., str]


def unreadable_call(caller: Agent, uri: str, line: bytes) -> None:
    """A call with a header field that is not UTF-8: it is refused."""
    fields = ["From: <sip:x@x.example>;tag=1", f"To: <{uri}>", f"Call-ID: unreadable-{caller.port}", "CSeq: 1 INVITE"]
    text = caller.compose(f"INVITE {uri}", [*fields, f"Contact: <{caller.contact('x')}>"], caller.sdp())
    caller.send(text.encode().replace(b"CSeq:", line + b"\r\nCSeq:"))
    caller.acknowledge(caller.expect(400))


def test_a_call_in_that_cannot_be_read_keeps_no_place(
    tenant: Callable[..., Tenant], pbx: Machine, phone: Agent, instance: Agent
) -> None:
    acme = tenant(pbx, limits={"calls": 1})
    for _ in range(2):
        unreadable_call(phone, f"sip:200@{acme.domain}", b"Replaces: \xff")
        busy_call(phone, instance, f"sip:200@{acme.domain}")


def test_a_call_out_that_cannot_be_read_keeps_no_place(
    tenant: Callable[..., Tenant], pbx: Machine, instance: Agent, trunk: Make, carrier: Agent
) -> None:
    acme = tenant(pbx, limits={"calls": 1})
    trunk(carrier.host, tenants=[acme.name], limits={"calls": 1})
    for _ in range(2):
        unreadable_call(instance, f"sip:0541201123@{carrier.host}", b"Subject: caf\xe9")
        busy_call(instance, carrier, f"sip:0541201123@{carrier.host}")


@pytest.mark.parametrize("subject", ["Subject: x", b"Subject: \xff".decode(errors="surrogateescape")], ids=["", "raw"])
def test_a_line_that_only_some_would_read_reaches_nobody(
    subject: str, acme: Tenant, phone: Agent, instance: Agent
) -> None:
    """PJSIP ends a line at a bare CR, so that what stands behind it would be a header field to an Asterisk."""
    fields = ["From: <sip:x@x.example>;tag=1", f"To: <sip:200@{acme.domain}>", "CSeq: 1 MESSAGE"]
    for number, smuggled in enumerate(("X-Forwarded-For: 6.6.6.6", "P-Asserted-Identity: <sip:201@acme.example>")):
        for line in (f"{subject}\r{smuggled}", f"{subject}\r\r\n {smuggled}", f"{subject}\r"):
            call_id = f"Call-ID: smuggled-{number}-{len(line)}-{len(subject)}-{phone.port}"
            text = phone.compose(f"MESSAGE sip:200@{acme.domain}", [*fields, call_id, line])
            phone.send(text.encode(errors="surrogateescape"))
            phone.expect(400)
    instance.expect_silence(0.1)


def test_a_tel_uri_that_makes_no_sip_uri_leaves_no_instance_out(
    node: Node, acme: Tenant, number: Make, trunk: Make, carrier: Agent, phone: Agent, instance: Agent
) -> None:
    number("0721405123", tenant=acme.name)
    trunk(carrier.host)
    for caller in (phone, carrier):
        caller.begin("MESSAGE", "tel:0721405123;x=a@203.0.113.20:9", to="sip:x@y.example")
        caller.expect(416)
        assert not node.down()
        busy_call(caller, instance, "tel:0721405123")
