"""SIP URIs and lists of name-addrs."""

import pytest

from sipward.uri import NameAddr, Uri, name_addrs, parse, split_list


@pytest.mark.parametrize(
    ("text", "user", "host"),
    [
        ("sip:alice@acme.example", "alice", "acme.example"),
        ("SIP:alice@acme.example:5060;transport=tcp", "alice", "acme.example"),
        ("sips:alice@acme.example?Subject=x:y", "alice", "acme.example"),
        ("sip:acme.example", "", "acme.example"),
        ("sip:acme.example;lr", "", "acme.example"),
        ("sip:alice:secret@acme.example", "alice:secret", "acme.example"),
        ("sip:a;b?c&d=e+f$,/@acme.example", "a;b?c&d=e+f$,/", "acme.example"),
        ("sip:%61lice%40home@acme.example", "%61lice%40home", "acme.example"),
        ("sip:alice@[2001:db8::1]:5060;x", "alice", "2001:db8::1"),
        ("sip:[2001:db8::1]", "", "2001:db8::1"),
        ("sip:alice@[2001:db8::1", "alice", "2001:db8::1"),
        ("sip:zoë@acme.example", "zoë", "acme.example"),
    ],
)
def test_a_sip_uri_has_a_user_and_a_host(text: str, user: str, host: str) -> None:
    uri = parse(text)
    assert uri is not None
    assert (uri.user, uri.host) == (user, host)


@pytest.mark.parametrize(
    "text", ["", "sip", "sip:", "sip:alice@", "sip:  ", "tel:+390721", "*", "http://x", ":x", "<sip:x>"]
)
def test_what_is_no_sip_uri_is_none(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("sip:h", 5060),
        ("sip:7@h:5080;transport=tcp", 5080),
        ("sip:7@[2001:db8::1]", 5060),
        ("sip:7@[2001:db8::1]:5062?a=b:1", 5062),
        ("sip:7@h:", 5060),
        ("sip:7@h:x", 5060),
        ("sip:7@h;x=:1", 5060),
    ],
)
def test_a_uri_without_a_port_means_5060(text: str, port: int) -> None:
    uri = parse(text)
    assert uri
    assert uri.port == port


@pytest.mark.parametrize("text", ["sip:a@@acme", "sip:@acme@b", "sip:a@b;x=@acme", "sip:a@b?h=c@acme", "sip:@@@acme"])
def test_no_host_holds_an_at_sign_so_none_is_the_key_of_a_tenants_name(text: str) -> None:
    uri = parse(text)
    assert uri is not None
    assert "@" not in uri.rest


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("sip:h;sw=abc", "abc"),
        ("sip:h;SW=AbC", "AbC"),
        ("sip:h; sw = abc ;lr", "abc"),
        ("sip:h;lr;sw=one;sw=two", "one"),
        ("sip:h;sw=a=b", "a=b"),
        ("sip:h;sw", ""),
        ("sip:h;sw=", ""),
        ("sip:h;lr;x-sw=abc", None),
        ("sip:h?sw=abc", None),
        ("sip:h?x=;sw=abc", None),
        ("sip:u;sw=abc@h", None),
        ("sip:sw=abc", None),
    ],
)
def test_a_parameter_is_the_first_of_its_name_in_any_case_and_only_behind_the_host(
    text: str, value: str | None
) -> None:
    uri = parse(text)
    assert uri is not None
    assert uri.param("sw") == value


@pytest.mark.parametrize("text", ["sip:alice:x@acme.example:5060;lr?a=b", "sips:[2001:db8::1]:5061;transport=tls"])
def test_a_uri_is_written_as_it_was_read(text: str) -> None:
    assert str(parse(text)) == text


def test_the_scheme_is_folded_and_the_user_is_not() -> None:
    assert parse("SipS:Alice@H") == Uri("sips", "Alice", "H")


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("", []),
        (" , ,", []),
        ("*", [NameAddr("", "*", "")]),
        ("<sip:a@h>", [NameAddr("", "sip:a@h", "")]),
        ("sip:a@h", [NameAddr("", "sip:a@h", "")]),
        ("sip:a@h;expires=5", [NameAddr("", "sip:a@h", ";expires=5")]),
        ("<sip:a@h;x=1>;q=0.5;expires=0", [NameAddr("", "sip:a@h;x=1", ";q=0.5;expires=0")]),
        ("Al <sip:a@h>,<sip:b@h>", [NameAddr("Al ", "sip:a@h", ""), NameAddr("", "sip:b@h", "")]),
        ('"B, <sip:x@y>" <sip:a@h>', [NameAddr('"B, <sip:x@y>" ', "sip:a@h", "")]),
        (r'"q\"," <sip:a@h>, sip:b@h', [NameAddr(r'"q\"," ', "sip:a@h", ""), NameAddr("", "sip:b@h", "")]),
        ("<sip:a,b@h>, <sip:c@h>", [NameAddr("", "sip:a,b@h", ""), NameAddr("", "sip:c@h", "")]),
        ('<sip:a@h>;+sip.instance="<urn:uuid:1,2>"', [NameAddr("", "sip:a@h", ';+sip.instance="<urn:uuid:1,2>"')]),
        ('<sip:a@h>;x="1,2",<sip:b@h>', [NameAddr("", "sip:a@h", ';x="1,2"'), NameAddr("", "sip:b@h", "")]),
        ("<sip:a@h, <sip:b@h>", [NameAddr("", "sip:a@h, <sip:b@h", "")]),
        ("<sip:a@h", []),
        ("Zoë <sip:a@h>", [NameAddr("Zoë ", "sip:a@h", "")]),
    ],
)
def test_a_contact_list_falls_apart_at_the_commas_between_its_values(header: str, values: list[NameAddr]) -> None:
    assert list(name_addrs(header)) == values


def test_a_quote_that_never_ends_hides_the_address_behind_it() -> None:
    assert [parse(value.uri) for value in name_addrs('"open <sip:a@h>')] == [None]


def test_a_name_addr_is_written_with_brackets_so_that_parameters_stay_where_they_belong() -> None:
    assert [str(value) for value in name_addrs("sip:a@h;expires=5")] == ["<sip:a@h>;expires=5"]


@pytest.mark.parametrize("text", ["<sip:us;lr>", ' "a" <sip:us>;x="y" '])
def test_a_list_of_one_is_that_one(text: str) -> None:
    assert list(split_list(text)) == [text.strip()]
