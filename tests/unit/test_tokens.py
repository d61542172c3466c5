"""What rides sealed in a message: dialog, binding, hidden contact."""

import pytest

from sipward.model import Endpoint, Srtp
from sipward.seal import Sealer
from sipward.tokens import Account, Binding, Dialog, Hidden
from sipward.uri import Uri

SEALER = Sealer([b"k" * 16])
PHONE = Endpoint("udp", "198.51.100.7", 40123)
PBX = Endpoint("udp", "10.5.4.11", 5080)
ENDS = [
    PHONE,
    PBX,
    Endpoint("tcp", "2001:db8::7", 65535),
    Endpoint("tls", "0.0.0.0", 1),
    Endpoint("udp", "fd00::1", 256),
]
TENANTS = ["a", "acme", "città", "x" * 64]


@pytest.mark.parametrize("outer", ENDS)
@pytest.mark.parametrize("inner", ENDS)
def test_a_dialog_opens_as_it_was_sealed(outer: Endpoint, inner: Endpoint) -> None:
    dialog = Dialog("acme", outer, inner)
    assert Dialog.open(SEALER, dialog.seal(SEALER, "1@h"), "1@h") == dialog


@pytest.mark.parametrize("tenant", TENANTS)
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("renamed", [False, True])
def test_a_dialog_keeps_its_tenant_and_its_two_marks(tenant: str, late: bool, renamed: bool) -> None:
    dialog = Dialog(tenant, PHONE, PBX, late, renamed)
    assert Dialog.open(SEALER, dialog.seal(SEALER, "ï@h"), "ï@h") == dialog


@pytest.mark.parametrize("media", [0, 1, 0x01020304, 0xFFFFFFFF])
def test_a_dialog_keeps_the_mark_of_its_media(media: int) -> None:
    dialog = Dialog("acme", PHONE, PBX, True, False, media)
    assert Dialog.open(SEALER, dialog.seal(SEALER, "1@h"), "1@h") == dialog


@pytest.mark.parametrize("port", [0, 1, 5100, 65535])
@pytest.mark.parametrize("trunk", ["", "carrier"])
@pytest.mark.parametrize("outer", ENDS)
def test_a_dialog_keeps_its_trunk_and_our_own_port(outer: Endpoint, trunk: str, port: int) -> None:
    dialog = Dialog("acme", outer, PBX, trunk=trunk, fixed=True, unhidden=True, port=port)
    assert Dialog.open(SEALER, dialog.seal(SEALER, "1@h"), "1@h") == dialog


@pytest.mark.parametrize("outer", Srtp)
@pytest.mark.parametrize("inner", Srtp)
@pytest.mark.parametrize("port", [0, 5100])
def test_a_dialog_keeps_what_the_media_of_its_ends_is(port: int, inner: Srtp, outer: Srtp) -> None:
    dialog = Dialog("acme", PHONE, PBX, trunk="carrier", others=(PBX,), port=port, outer_srtp=outer, inner_srtp=inner)
    sealed = dialog.seal(SEALER, "1@h")
    assert Dialog.open(SEALER, sealed, "1@h") == dialog
    plain = dialog._replace(outer_srtp=Srtp.OFF, inner_srtp=Srtp.OFF).seal(SEALER, "1@h")
    assert (len(plain) < len(sealed)) is (outer is not Srtp.OFF or inner is not Srtp.OFF)


def test_an_ordinary_dialog_is_no_longer_for_it() -> None:
    ordinary, own = (Dialog("acme", PHONE, PBX, port=port).seal(SEALER, "1@h") for port in (0, 5100))
    assert len(ordinary) < len(own)


@pytest.mark.parametrize("call_id", ["", "1@H", "1@h ", "2@h", "1"])
def test_a_dialog_is_bound_to_its_call_id(call_id: str) -> None:
    assert Dialog.open(SEALER, Dialog("acme", PHONE, PBX).seal(SEALER, "1@h"), call_id) is None


@pytest.mark.parametrize("flow", ENDS)
@pytest.mark.parametrize("tenant", TENANTS)
@pytest.mark.parametrize("contact", ["sip:192.168.1.20:5060;transport=tcp", "sips:[fe80::1]", "sip:höst", ""])
def test_a_binding_opens_as_it_was_sealed(flow: Endpoint, tenant: str, contact: str) -> None:
    binding = Binding(tenant, flow, contact)
    assert Binding.open(SEALER, binding.seal(SEALER)) == binding


@pytest.mark.parametrize("tenant", TENANTS)
@pytest.mark.parametrize("contact", ["10.5.4.11:5080", "[fd00::1]:5060;transport=tcp;x=" + "y" * 2000, ""])
def test_a_hidden_contact_opens_as_it_was_sealed(tenant: str, contact: str) -> None:
    hidden = Hidden(tenant, contact)
    assert Hidden.open(SEALER, hidden.seal(SEALER)) == hidden


def test_the_phone_gets_its_own_contact_back_under_the_user_the_registrar_calls() -> None:
    binding = Binding("acme", PHONE, "sips:192.168.1.20:5061;transport=tls")
    assert binding.own_contact("100") == Uri("sips", "100", "192.168.1.20:5061;transport=tls")


def test_no_text_opens_as_another_kind() -> None:
    dialog, binding = Dialog("acme", PHONE, PBX).seal(SEALER, ""), Binding("acme", PHONE, "sip:h").seal(SEALER)
    hidden = Hidden("acme", "h").seal(SEALER)
    assert Dialog.open(SEALER, binding, "") is Dialog.open(SEALER, hidden, "") is None
    assert Binding.open(SEALER, dialog) is Binding.open(SEALER, hidden) is None
    assert Hidden.open(SEALER, dialog) is Hidden.open(SEALER, binding) is None


def test_no_text_of_another_nodes_key_opens() -> None:
    other = Sealer([b"o" * 16])
    assert Dialog.open(SEALER, Dialog("acme", PHONE, PBX).seal(other, "1"), "1") is None
    assert Binding.open(SEALER, Binding("acme", PHONE, "sip:h").seal(other)) is None
    assert Hidden.open(SEALER, Hidden("acme", "h").seal(other)) is None


def test_equal_contacts_of_two_tenants_have_two_texts() -> None:
    assert Hidden("acme", "10.5.4.11").seal(SEALER) != Hidden("globex", "10.5.4.11").seal(SEALER)


UDP4, UDP6 = b"\x00\x0a\x05\x04\x0b\x13\xd8", b"\x80" + b"\x7f" * 18
MALFORMED = [
    b"",
    b"\x00",
    b"\x80",
    b"\xff",
    UDP4[:-1],
    UDP6[:-1],
    b"\x05" + UDP4[1:] + b"\x01ah",
    UDP4 + b"\x05acm",
    UDP4 + b"\x02\xff\xfe",
    UDP4 + b"\x01a\xff",
    b"\x00" + UDP4,
    b"\x00" + UDP4 + UDP4[:-1],
    b"\x00" + UDP4 + UDP4 + b"\xff",
    b"\x00" + UDP4 + b"\x03" + UDP4[1:],
]


@pytest.mark.parametrize("content", MALFORMED)
def test_a_content_of_another_release_is_not_ours_and_does_not_raise(content: bytes) -> None:
    assert Dialog.open(SEALER, SEALER.seal(b"dialog", content, b"1"), "1") is None
    assert Binding.open(SEALER, SEALER.seal(b"binding", content)) is None


@pytest.mark.parametrize("content", [b"", b"\x05acm", b"\x02\xff\xfe", b"\x01a\xff"])
def test_a_hidden_content_of_another_release_is_not_ours_and_does_not_raise(content: bytes) -> None:
    assert Hidden.open(SEALER, SEALER.seal(b"hidden", content)) is None


@pytest.mark.parametrize("text", ["", "=", "é", "A" * 500, "sw=x", "\ud800"])
def test_any_other_text_is_none(text: str) -> None:
    assert Dialog.open(SEALER, text, "1") is None
    assert Binding.open(SEALER, text) is None
    assert Hidden.open(SEALER, text) is None


@pytest.mark.parametrize("others", [(), (PBX,), (PBX, PHONE, PBX._replace(host="2001:db8::1"))])
@pytest.mark.parametrize("trunk", ["", "carrier"])
def test_a_dialog_knows_the_targets_that_may_have_taken_over(others: tuple[Endpoint, ...], trunk: str) -> None:
    dialog = Dialog("acme", PHONE, PBX, media=7, trunk=trunk, fixed=True, unhidden=True, others=others)
    assert Dialog.open(SEALER, dialog.seal(SEALER, "1"), "1") == dialog


def test_any_of_a_dialogs_targets_may_speak_for_it_from_any_port() -> None:
    dialog = Dialog("acme", PHONE, PBX, others=(PBX._replace(host="10.5.4.99"),))
    assert dialog.may_be(dialog.inner, PBX._replace(port=9))
    assert dialog.may_be(dialog.inner, PBX._replace(host="10.5.4.99", port=9))
    assert not dialog.may_be(dialog.inner, PBX._replace(host="10.5.4.98"))


def test_an_account_opens_for_its_trunk_alone() -> None:
    account = Account("acme", "sip:0721@10.5.4.11:5080;line=1")
    text = account.seal(SEALER, "carrier")
    assert text.startswith("sw-")
    assert Account.open(SEALER, text, "carrier") == account
    assert Account.open(SEALER, text, "other") is None
    assert Account.open(SEALER, text.removeprefix("sw-"), "carrier") is None
    assert Account.open(SEALER, Hidden("acme", "h").seal(SEALER), "carrier") is None


@pytest.mark.parametrize("content", [b"", b"\x05acm", b"\x02\xff\xfe", b"\x01a\xff"])
def test_an_account_of_another_release_is_not_ours_and_does_not_raise(content: bytes) -> None:
    assert Account.open(SEALER, f"sw-{SEALER.seal(b'account', content, b'carrier')}", "carrier") is None
