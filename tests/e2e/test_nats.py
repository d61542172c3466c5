"""Phones behind NATs of every kind: private addresses in their Via, Contact and SDP, audio both ways all the same.

The port-restricted and the symmetric one are also in `test_media`, the place in which the node is behind one itself in
`test_own_network`.
"""

from collections.abc import Callable
from contextlib import ExitStack

import pytest

from lab.asterisk import Asterisk
from lab.baresip import Baresip
from lab.calls import expect_audio, received
from lab.network import Lab, Machine, Nat
from lab.sipp import Transport, sipp

from .conftest import Tenant


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("kind", ["cone", "double"])
def test_a_phone_behind_it_calls_and_is_called(
    kind: Nat, transport: Transport, lab: Lab, pbx: Machine, tenant: Callable[..., Tenant]
) -> None:
    acme, phone = tenant(pbx), lab.phone(f"behind-{kind}", behind=kind)
    callee = sipp(pbx, "call-answered", "uas")
    sipp(phone, "call-answered", transport=transport, keys=acme.keys, talk=1.3)
    callee.wait()
    expect_audio(phone, pbx)
    registrar = sipp(pbx, "register", "uas", keys=acme.keys)
    registered = sipp(
        phone, "register", transport=transport, keys=acme.keys, answers="call-answered", talk=30, background=True
    )
    registrar.wait()
    registered.wait_for("registered")
    sipp(pbx, "call-from-instance", keys=acme.keys | {"target": registrar.saved["contact"]}, talk=1.3)
    registered.stop()
    expect_audio(phone, pbx)
    said = [m for m in lab.wire.messages(machine=phone.name, direction="out") if m.method in {"INVITE", "REGISTER"}]
    assert all(phone.address in m.text for m in said)
    assert phone.address not in "".join(m.body for m in received(pbx)) + registrar.saved["contact"]


@pytest.mark.parametrize("kind", ["symmetric", "double"])
def test_two_phones_behind_the_same_nat_talk_to_each_other(
    kind: Nat, lab: Lab, pbx: Machine, tenant: Callable[..., Tenant]
) -> None:
    domain = tenant(pbx).domain
    places = [lab.phone(f"{name}-{kind}", behind=kind) for name in ("first", "second")]
    with ExitStack() as running:
        asterisk = running.enter_context(Asterisk(pbx, domain, ["201", "202"]))
        first = running.enter_context(Baresip(places[0], "201", domain, answers=True))
        second = running.enter_context(Baresip(places[1], "202", domain, transport="tcp", answers=True))
        for caller, number in ((first, "202"), (second, "201")):
            caller.dial(number)
            expect_audio(*places)
            caller.hangup()
    assert not asterisk.errors, asterisk.log_tail()
