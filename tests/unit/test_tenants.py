"""A tenant's value: what a hand may write, and what each mistake is told."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from sipward import live, settings
from sipward.addresses import Addresses
from sipward.model import Codecs, Endpoint, Instance, Srtp, Tenant
from sipward.records import VALUE_MAX, RecordError
from sipward.rules import Rules
from sipward.tenants import TenantRecord, parse

CONFIGURATION = """
fqdn = "sip.example.org"
[network]
address = ["203.0.113.5", "2001:db8::5"]
public_address = "198.51.100.5"
service_address = "10.5.4.1"
service_networks = ["10.5.4.0/24", "2001:db8:5::/64", "0.0.0.0/0"]
"""


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Rules:
    return make_rules(tmp_path_factory.mktemp("rules"), CONFIGURATION)


def make_rules(directory: Path, text: str) -> Rules:
    file = directory / "sipward.toml"
    file.write_text(text)
    found = settings.load(file)
    network = found.network
    return Rules.of(found, Addresses(network.address, network.public_address, network.service_address, ()))


def value(**fields: Any) -> str:
    return json.dumps({"domains": ["acme.example.org"], "instances": [{"uri": "sip:10.5.4.1:5080"}], **fields})


def with_instance(**fields: Any) -> str:
    return value(instances=[{"uri": "sip:10.5.4.1:5080", **fields}])


def refusal(raw: bytes | str, rules: Rules, name: str = "acme") -> str:
    with pytest.raises(RecordError) as caught:
        parse(name, raw, rules)
    return str(caught.value)


def test_a_full_value_becomes_a_tenant(rules: Rules) -> None:
    raw = value(
        domains=["ACME.example.org.", "203.0.113.77", "[2001:DB8:0::77]", "2001:db8::78", "sip.example.org"],
        instances=[
            {"uri": "sip:10.5.4.1:5080", "weight": 3, "priority": 2, "description": "Büro 1", "drain": True},
            {"uri": "SIP:10.5.4.7;Transport=TCP"},
        ],
        redirect="refuse",
    )
    record = parse("acme", raw.encode(), rules)
    assert record.domains == ("acme.example.org", "203.0.113.77", "[2001:db8::77]", "[2001:db8::78]", "sip.example.org")
    assert record.to_tenant() == Tenant(
        "acme",
        (
            Instance(Endpoint("udp", "10.5.4.1", 5080), weight=3, priority=2, drain=True),
            Instance(Endpoint("tcp", "10.5.4.7", 5060)),
        ),
        "refuse",
        "acme.example.org",
    )


def test_what_its_media_is_to_be_comes_through_the_live_table(rules: Rules) -> None:
    codecs = {"names": ["opus", "PCMA"], "only": True, "transcode": True}
    record = parse(
        "acme", value(instances=[{"uri": "sip:10.5.4.9", "srtp": "dtls"}], ice="answer", codecs=codecs), rules
    )
    tenant = live.decode(record.entries["@acme"])
    assert tenant == record.to_tenant()
    assert (tenant.ice, tenant.codecs) == ("answer", Codecs(("opus", "PCMA"), only=True, transcode=True))
    assert tenant.srtp_of(Endpoint("udp", "10.5.4.9", 5060)) is Srtp.DTLS
    assert tenant.srtp_of(Endpoint("udp", "10.5.4.8", 5060)) is Srtp.OFF


def test_an_ipv6_instance_is_written_in_any_spelling(rules: Rules) -> None:
    (instance,) = parse("acme", with_instance(uri="SIP:[2001:DB8:5:0::7];Transport=TCP"), rules).to_tenant().instances
    assert instance.endpoint == Endpoint("tcp", "2001:db8:5::7", 5060)


def test_what_is_left_out_has_the_documented_default(rules: Rules) -> None:
    tenant = parse("acme", value(), rules).to_tenant()
    assert tenant == Tenant(
        "acme", (Instance(Endpoint("udp", "10.5.4.1", 5080), 1, 1, False),), "pass", "acme.example.org"
    )


def test_a_tenant_may_have_nothing_yet(rules: Rules) -> None:
    assert parse("acme", value(domains=[], instances=[]), rules).to_tenant() == Tenant("acme", ())


def test_what_is_written_back_is_the_same_tenant(rules: Rules) -> None:
    record = parse("acme", with_instance(description="Büro", weight=7), rules)
    assert parse("acme", record.to_json(), rules) == record
    assert "Büro" in record.to_json()


@pytest.mark.parametrize("name", ["a", "acme", "acme-2_x.y", "0", "_", "a" * 64])
def test_a_name_may_be(name: str, rules: Rules) -> None:
    assert isinstance(parse(name, value(), rules), TenantRecord)


@pytest.mark.parametrize("name", ["", "A", "a b", "a/b", "a:b", "a" * 65, "ä", "a\n", ".a", "a.", "\udcff"])
def test_a_name_may_not_be(name: str, rules: Rules) -> None:
    assert refusal(value(), rules, name).startswith("name = ")


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("", "value: not JSON"),
        ("{", "value: not JSON"),
        ("{'domains': []}", "value: not JSON"),
        (b'{"domains": ["\xff"]}', "value: not UTF-8"),
        ("\ufeff{}", "value: not JSON"),
        ("[" * 60000, "value: not JSON"),
        ('{"a":' * 10000, "value: not JSON"),
        ("1" * 60000, "value: not JSON"),
        ("[]", "value: must be a table of fields"),
        ("null", "value: must be a table of fields"),
        ('{"domains": [], "domains": [], "instances": []}', 'field "domains" is there twice'),
        ('{"domains": [], "instances": [{"uri": "a", "uri": "b"}]}', 'field "uri" is there twice'),
        (" " * (VALUE_MAX + 1), f"at most {VALUE_MAX} are allowed"),
        ("{}", "domains: missing"),
        ('{"domains": []}', "instances: missing"),
    ],
)
def test_what_is_no_such_json_is_refused(raw: bytes | str, told: str, rules: Rules) -> None:
    assert told in refusal(raw, rules)


def test_nesting_that_is_too_deep_for_a_small_stack_is_refused(rules: Rules) -> None:
    before = threading.stack_size(256 * 1024)
    try:
        with ThreadPoolExecutor(1) as small:
            told = small.submit(refusal, '{"a":' * 10000, rules).result()
    finally:
        threading.stack_size(before)
    assert told == "value: not JSON: nested too deeply"


def test_the_largest_value_allowed_is_read(rules: Rules) -> None:
    assert parse("acme", value().ljust(VALUE_MAX), rules)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"colour": 1}, "colour: unknown"),
        ({"na\nme": 1}, '"na\\nme": unknown'),
        ({"name": "other"}, "name: unknown"),
        ({"domains": "acme.example.org"}, 'domains = "acme.example.org": must be a list'),
        ({"domains": [1]}, "domains[0] = 1: should be a valid string"),
        ({"domains": ["a.example.org:5060"]}, 'domain "a.example.org:5060" must be a host name or an IP address'),
        ({"domains": ["a b"]}, "must be a host name"),
        ({"domains": ["a\u0000b"]}, 'domain "a\\u0000b" must be'),
        ({"domains": ["a.example.org\r\n"]}, "must be a host name"),
        ({"domains": ["-a.org"]}, "must be a host name"),
        ({"domains": ["a..org"]}, "must be a host name"),
        ({"domains": ["."]}, "must be a host name"),
        ({"domains": [""]}, "must be a host name"),
        ({"domains": ["ä.example.org"]}, "must be a host name"),
        ({"domains": ["@acme"]}, "must be a host name"),
        ({"domains": ["999.1.1.1"]}, "must be a host name or an IP address"),
        ({"domains": ["[10.5.4.9]"]}, "must be a host name or an IP address"),
        ({"domains": [f"{'a' * 64}.org"]}, "must be a host name"),
        ({"domains": ["a." * 126 + "aa"]}, "must be a host name"),
        ({"domains": ["a.org", "b.org", "A.org."]}, '"a.org" is there twice'),
        ({"domains": [f"d{i}.org" for i in range(1001)]}, "1000"),
        ({"domains": ["203.0.113.5"]}, "is an address of the node itself"),
        ({"domains": ["198.51.100.5"]}, "is an address of the node itself"),
        ({"domains": ["10.5.4.1"]}, "is an address of the node itself"),
        ({"domains": ["[2001:DB8:0::5]"]}, "is an address of the node itself"),
        ({"instances": {}}, "instances: must be a list"),
        ({"instances": ["sip:10.5.4.1:5080"]}, "instances[0]: must be a table of fields"),
        ({"instances": [{}]}, "instances[0].uri: missing"),
        ({"instances": [{"uri": "sip:10.5.4.9"}] * 2}, "is there twice"),
        ({"instances": [{"uri": "sip:10.5.4.9"}, {"uri": "sip:10.5.4.9:5060;transport=udp"}]}, "is there twice"),
        ({"instances": [{"uri": f"sip:10.5.4.9:{6000 + i}"} for i in range(101)]}, "100"),
        ({"redirect": "follow"}, "redirect = \"follow\": should be 'pass' or 'refuse'"),
        ({"redirect": True}, "redirect = true"),
        ({"ice": "yes"}, "ice = \"yes\": should be 'answer' or 'remove'"),
        ({"codecs": ["PCMA"]}, "codecs: must be a table of fields"),
        ({"codecs": {"names": ["PCMA", "PCMA"]}}, 'codecs.names = ["PCMA", "PCMA"]: "PCMA" is there twice'),
        (
            {"codecs": {"names": ["PCMA direction=service"]}},
            "must be a codec's name in SDP, such as PCMA, G722 or opus",
        ),
        ({"codecs": {"names": ["opus/48000"]}}, "must be a codec's name in SDP"),
        ({"codecs": {"names": [f"c{n}" for n in range(21)]}}, "20"),
        ({"codecs": {"only": True}}, "codecs.names: must name codecs, for only and transcode to speak of them"),
        ({"codecs": {"names": [], "transcode": True}}, "must name codecs"),
        ({"codecs": {"names": ["PCMA"], "first": True}}, "codecs.first: unknown"),
    ],
)
def test_a_wrong_field_is_refused(fields: dict[str, Any], told: str, rules: Rules) -> None:
    text = refusal(value(**fields), rules)
    assert told in text
    assert len(text.splitlines()) == 1
    assert text.isprintable()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"weight": 0}, "instances[0].weight = 0: must be 1 to 1000"),
        ({"weight": 1001}, "must be 1 to 1000"),
        ({"weight": True}, "instances[0].weight = true"),
        ({"weight": "5"}, 'instances[0].weight = "5"'),
        ({"weight": 1.5}, "instances[0].weight = 1.5"),
        ({"weight": float("nan")}, "instances[0].weight = NaN"),
        ({"priority": 0}, "instances[0].priority = 0: must be 1 to 100"),
        ({"priority": 101}, "must be 1 to 100"),
        ({"drain": 1}, "instances[0].drain = 1"),
        ({"drain": "true"}, "instances[0].drain = "),
        ({"description": "a\nb"}, 'instances[0].description = "a\\nb": must have no control characters'),
        ({"description": "a\u0000"}, "must have no control characters"),
        ({"description": "\ud800"}, "should be a valid string"),
        ({"description": "\u2028"}, "must have no control characters"),
        ({"description": "x" * 201}, "200"),
        ({"Weight": 1}, "instances[0].Weight: unknown"),
        ({"srtp": "on"}, "instances[0].srtp = \"on\": should be 'off', 'sdes' or 'dtls'"),
        ({"srtp": True}, "instances[0].srtp = true"),
    ],
)
def test_a_wrong_field_of_an_instance_is_refused(fields: dict[str, Any], told: str, rules: Rules) -> None:
    assert told in refusal(with_instance(**fields), rules)


FORM = "must be sip:ADDRESS"
OWN_SIP = "is the node's own SIP port"


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("", FORM),
        ("10.5.4.9", FORM),
        ("sips:10.5.4.9", FORM),
        ("tel:1", FORM),
        ("sip:pbx.example.org", FORM),
        ("sip:user@10.5.4.9", FORM),
        ("sip:10.5.4.9;lr", FORM),
        ("sip:10.5.4.9;transport=tls", FORM),
        ("sip:10.5.4.9;transport=udp;lr", FORM),
        ("sip:10.5.4.9?a=b", FORM),
        ("sip:10.5.4.9:", FORM),
        ("sip:10.5.4.9:123456", FORM),
        ("sip:10.5.4.9\r\nVia: x", FORM),
        ("sip:10.5.4.9\n", FORM),
        (" sip:10.5.4.9", FORM),
        ("sip:2001:db8:5::7", FORM),
        ("sip:[2001:db8:5::7%eth0]", FORM),
        ("sip:10.5.4.٩", FORM),
        ("sip:10.5.4", "must name an IP address"),
        ("sip:10.5.4.010", "must name an IP address"),
        ("sip:[:::]", "must name an IP address"),
        ("sip:10.5.4.9:0", "must name a port"),
        ("sip:10.5.4.9:65536", "must name a port"),
        ("sip:[::ffff:10.5.4.9]", "is an IPv4 address in disguise: write 10.5.4.9"),
        (f"sip:10.5.4.9{'x' * 128}", "128"),
        ("sip:[2001:db8:6::7]", "must be inside network.service_networks (10.5.4.0/24, 2001:db8:5::/64, 0.0.0.0/0)"),
        ("sip:127.0.0.1:5080", "is a loopback address"),
        ("sip:0.0.0.0:5080", "must be the address of one machine"),
        ("sip:239.1.1.1:5080", "must be the address of one machine"),
        ("sip:10.5.4.1", OWN_SIP),
        ("sip:10.5.4.1:5060;transport=tcp", OWN_SIP),
        ("sip:10.5.4.1:5061", OWN_SIP),
        ("sip:203.0.113.5:5060", OWN_SIP),
        ("sip:198.51.100.5:5060", OWN_SIP),
        ("sip:10.5.4.1:20000", "is one of the node's media ports"),
        ("sip:10.5.4.1:29999", "is one of the node's media ports"),
    ],
)
def test_an_instance_somewhere_else_is_refused(uri: str, told: str, rules: Rules) -> None:
    text = refusal(with_instance(uri=uri), rules)
    assert told in text
    assert text.startswith("instances[0].uri = ")
    assert text.isprintable()


@pytest.mark.parametrize("uri", ["sip:10.5.4.1:5080", "sip:10.5.4.1:30000", "sip:10.5.4.9", "sip:[2001:db8:5::7]:5061"])
def test_an_instance_beside_our_ports_or_on_another_host_is_allowed(uri: str, rules: Rules) -> None:
    assert parse("acme", with_instance(uri=uri), rules)


LOOPBACK = 'fqdn = "a"\n[network]\naddress = "10.0.0.1"\nservice_networks = ["127.0.0.0/8", "::1"]\n'


@pytest.mark.parametrize("uri", ["sip:127.0.0.1:5080", "sip:[::1]:5080"])
def test_loopback_is_allowed_where_it_is_listed(uri: str, tmp_path: Path) -> None:
    assert parse("acme", with_instance(uri=uri), make_rules(tmp_path, LOOPBACK))


def test_rtpengines_control_port_is_never_an_instance(tmp_path: Path) -> None:
    text = refusal(with_instance(uri="sip:127.0.0.1:2223"), make_rules(tmp_path, LOOPBACK))
    assert "is rtpengine's control port (rtp.control)" in text


def test_a_port_for_registrations_at_carriers_is_never_an_instance(tmp_path: Path) -> None:
    rules = make_rules(tmp_path, f'{CONFIGURATION}[trunks]\nown_ports = "5100-5103"\n')
    for port in (5100, 5103):
        text = refusal(with_instance(uri=f"sip:203.0.113.5:{port}"), rules)
        assert "is one of the node's ports for trunks (trunks.own_ports)" in text
    assert parse("acme", with_instance(uri="sip:10.5.4.1:5100"), rules)
    assert parse("acme", with_instance(uri="sip:203.0.113.5:5104"), rules)


AMONG_PHONES = """
fqdn = "a"
[network]
address = "192.168.1.10"
service_networks = ["192.168.0.0/16", "192.168.1.5/32"]
local_networks = ["192.168.1.0/24"]
"""


def test_an_instance_where_the_phones_live_is_listed_by_its_host(tmp_path: Path) -> None:
    rules = make_rules(tmp_path, AMONG_PHONES)
    for address in ("192.168.1.5", "192.168.2.5"):
        assert parse("acme", with_instance(uri=f"sip:{address}"), rules)
    text = refusal(with_instance(uri="sip:192.168.1.6"), rules)
    assert "is in network.local_networks (192.168.1.0/24): list the host itself in network.service_networks" in text


def test_instances_of_both_families_are_refused(rules: Rules) -> None:
    mixed = [{"uri": "sip:10.5.4.9"}, {"uri": "sip:[2001:db8:5::7]"}]
    line = refusal(value(instances=mixed), rules)
    assert line.startswith("instances = ")
    assert line.endswith("must be all IPv4 or all IPv6: there is no failover from one to the other")
    for instance in mixed:
        assert parse("acme", value(instances=[instance]), rules)


def test_without_service_networks_no_instance_is_allowed_and_the_reason_says_so() -> None:
    rules = Rules((), (), ())
    assert "network.service_networks is empty" in refusal(with_instance(uri="sip:10.5.4.9"), rules)


def test_without_rules_only_the_form_is_checked() -> None:
    assert parse("acme", with_instance(uri="sip:203.0.113.5"), None)


def test_all_problems_of_a_value_are_told(rules: Rules) -> None:
    lines = refusal(value(domains=["a b"], redirect="x", colour=1), rules).splitlines()
    assert [line.split(" ")[0].rstrip(":") for line in lines] == ["domains", "redirect", "colour"]


def test_rules_are_written_the_same_way_in_every_process(tmp_path: Path) -> None:
    rules = make_rules(tmp_path, CONFIGURATION)
    assert rules == make_rules(tmp_path, CONFIGURATION)
    assert rules.own == tuple(map(ip_address, ("10.5.4.1", "198.51.100.5", "2001:db8::5", "203.0.113.5")))
    assert "set" not in repr(rules)
