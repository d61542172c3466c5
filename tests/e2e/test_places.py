"""The node where it may stand: behind a router that forwards to it, and in a site without Internet."""

import pytest

from lab.calls import expect_audio, received, told
from lab.network import Behind, Lab, Machine, Place
from lab.node import Node
from lab.probe import Asker
from lab.sipp import sipp

REACHED_FROM: dict[Place, tuple[Behind, ...]] = {"nat": ("public", "symmetric", "local"), "local": ("local",)}


@pytest.mark.parametrize("place", REACHED_FROM)
def test_phones_call_and_are_called_from_wherever_they_are(place: Place, own_lab: Lab) -> None:
    with Node(own_lab, place) as node:
        pbx = own_lab.instance("pbx")
        node.route_add("acme", ["acme.example"], [pbx])
        for behind in REACHED_FROM[place]:
            phone = own_lab.phone(f"phone-{behind}", behind)
            _calls(phone, pbx)
            _is_called(phone, pbx)


def test_on_one_address_for_everything_a_pbx_lives_among_the_phones(own_lab: Lab) -> None:
    # Its host alone is the service network, in the very network of the phones.
    own_lab.node("local")
    pbx, phone = own_lab.phone("pbx", "local"), own_lab.phone("desk", "local")
    network = {"service_address": [], "service_networks": [f"{pbx.address}/32"]}
    with Node(own_lab, "local", {"network": network}) as node:
        node.route_add("acme", ["acme.example"], [pbx])
        _calls(phone, pbx)
        _is_called(phone, pbx)
        assert [m.first_line for m in received(phone) if pbx.address in m.text] == []
        assert (media := told(phone))
        assert media.host == node.machine.address
        with Asker(own_lab.phone("other", "local")) as other:
            assert other.status(f"sip:200@{node.machine.address}", "INVITE") == 404


def _calls(phone: Machine, pbx: Machine) -> None:
    callee = sipp(pbx, "call-answered", "uas")
    sipp(phone, "call-answered", talk=1.3)
    callee.wait()
    expect_audio(phone, pbx)


def _is_called(phone: Machine, pbx: Machine) -> None:
    registrar = sipp(pbx, "register", "uas")
    registered = sipp(phone, "register", answers="call-answered", talk=30, background=True)
    registrar.wait()
    registered.wait_for("registered")
    sipp(pbx, "call-from-instance", keys={"target": registrar.saved["contact"]}, talk=1.3)
    registered.stop()
    expect_audio(phone, pbx)
