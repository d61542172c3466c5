"""The configuration: what a file and the environment make of a node, and what each wrong value is told."""

import os
import re
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from sipward import settings
from sipward.numbers import Plan
from sipward.settings import Control, PortRange, Settings, SettingsError

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
SECRET = "s3cr3t"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SIPWARD_")]:
        monkeypatch.delenv(name)


def load(tmp_path: Path, network: str = 'address = "203.0.113.5"', top: str = "", rest: str = "") -> Settings:
    file = tmp_path / "sipward.toml"
    fqdn = "" if "fqdn" in top else 'fqdn = "sip.example.org"\n'
    file.write_text(f"{fqdn}{top}\n[network]\n{network}\n{rest}\n")
    return settings.load(file)


def refusal(tmp_path: Path, network: str = 'address = "203.0.113.5"', top: str = "", rest: str = "") -> str:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, network, top, rest)
    return str(caught.value)


def addresses(*texts: str) -> tuple[object, ...]:
    return tuple(map(ip_address, texts))


def test_a_minimal_file_gets_the_documented_defaults(tmp_path: Path) -> None:
    found = load(tmp_path)
    assert found.fqdn == "sip.example.org"
    assert found.state_dir == Path("/var/lib/sipward/node")
    assert found.lets_encrypt is False
    assert found.network.interface is None
    assert (found.network.sip_port, found.network.sips_port) == (5060, 5061)
    assert found.network.service_networks == found.network.local_networks == found.network.public_address == ()
    assert found.rtp.ports == PortRange(20000, 29999)
    assert found.rtp.control == Control(ip_address("127.0.0.1"), 2223)
    assert found.redis_url == "unix:///var/lib/sipward/node/redis/redis.sock"
    assert (found.rtp.learning, found.rtp.tenant_share, found.rtp.source_share) == ("behind-nat", 50, 10)
    assert (found.sip.workers, found.sip.instance_timeout, found.sip.ring_timeout) == (4, 2.0, 85.0)
    assert (found.numbers.plan, found.dns.servers) == (Plan("", "00", ""), ())
    assert (found.health.interval, found.health.timeout, found.health.threshold) == (30.0, 2.0, 2)


@pytest.mark.parametrize("written", ['"+39"', '"3 9"', '"123456789"', '"٣"', '"x"', "39", "true"])
@pytest.mark.parametrize("key", ["country_code", "international_prefix", "national_prefix"])
def test_what_is_dialled_before_a_number_is_digits(tmp_path: Path, key: str, written: str) -> None:
    line = refusal(tmp_path, rest=f"[numbers]\n{key} = {written}\n")
    assert f"numbers.{key} = {written}: " in line.replace("\\u0663", "٣")


def test_name_servers_are_addresses(tmp_path: Path) -> None:
    assert load(tmp_path, rest='[dns]\nservers = ["192.0.2.53"]\n').dns.servers == addresses("192.0.2.53")
    assert "dns.servers[0] = " in refusal(tmp_path, rest='[dns]\nservers = ["ns.example.org"]\n')


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('"203.0.113.5"', ("203.0.113.5",)),
        ('["203.0.113.5"]', ("203.0.113.5",)),
        ('["2001:DB8::0:5", "203.0.113.5"]', ("203.0.113.5", "2001:db8::5")),
        ('"[2001:db8::5]"', ("2001:db8::5",)),
    ],
)
def test_an_address_may_be_one_text_or_a_list(tmp_path: Path, written: str, read: tuple[str, ...]) -> None:
    assert load(tmp_path, f"address = {written}").network.address == addresses(*read)


def test_the_service_address_is_the_address_unless_given(tmp_path: Path) -> None:
    assert load(tmp_path).network.service_address == addresses("203.0.113.5")
    given = 'address = "203.0.113.5"\nservice_address = "10.5.4.1"'
    assert load(tmp_path, given).network.service_address == addresses("10.5.4.1")
    assert load(tmp_path, 'interface = "eth0"').network.service_address == ()


def test_networks_are_read(tmp_path: Path) -> None:
    network = load(tmp_path, 'interface = "eth0"\nservice_networks = ["10.5.4.0/24", "2001:db8::/64"]').network
    assert network.service_networks == (ip_network("10.5.4.0/24"), ip_network("2001:db8::/64"))


def test_a_host_name_is_folded(tmp_path: Path) -> None:
    assert load(tmp_path, top='fqdn = "SIP.Example.ORG."').fqdn == "sip.example.org"


@pytest.mark.parametrize("url", ["redis://h", "rediss://u:p@h:6380/2", "unix:///run/r.sock?db=1", "redis://[::1]:7"])
def test_a_redis_elsewhere_is_taken_as_it_is(tmp_path: Path, url: str) -> None:
    assert load(tmp_path, rest=f'[redis]\nurl = "{url}"').redis_url == url


def test_the_socket_of_the_own_redis_survives_odd_letters_in_its_path(tmp_path: Path) -> None:
    found = load(tmp_path, top='state_dir = "/var/lib/a b?c#d%20"')
    assert found.redis_url == "unix:///var/lib/a%20b%3Fc%23d%2520/redis/redis.sock"


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    found = load(tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        found.fqdn = "other.example.org"
    with pytest.raises(ValueError, match="frozen"):
        found.network.sip_port = 1


def test_what_a_node_was_started_with_is_read_back(tmp_path: Path) -> None:
    found = load(tmp_path, rest=f'[rtp]\nports = "30000-39999"\n[redis]\nurl = "redis://:{SECRET}@h"')
    file = tmp_path / "settings.json"
    file.write_text(found.model_dump_json())
    assert settings.restore(file) == found


NETWORK = [
    ('address = "203.0.113"', 'network.address[0] = "203.0.113": must be an IPv4 or IPv6 address'),
    ('address = ["203.0.113.5", "203.0.113.6"]', "at most one IPv4 and one IPv6"),
    ('address = "0.0.0.0"', "not a wildcard"),
    ('address = "239.1.1.1"', "not a wildcard, multicast"),
    ('address = "fe80::1"', "IPv6 link-local"),
    ('address = "fe80::1%eth0"', "must be an IPv4 or IPv6 address"),
    ("address = 5", "network.address = 5:"),
    ("address = [5]", "network.address[0] = 5:"),
    ("", "network.address: exactly one of interface and address must be given"),
    ('interface = "eth0"\naddress = "203.0.113.5"', "network.address: exactly one of interface and address"),
    ('interface = "a/b"', 'network.interface = "a/b": must be the name of a network interface'),
    ('interface = "-a"', "must be the name of a network interface"),
    ('interface = "sixteen-letters-"', "must be the name of a network interface"),
    ('address = "10.0.0.1"\npublic_address = "2001:db8::1"', 'network.public_address = "2001:db8::1": names IPv6'),
    ('address = "10.0.0.1"\npublic_address = ["1.1.1.1", "1.1.1.2"]', "network.public_address = "),
    ('address = "10.0.0.1"\nservice_networks = "10.5.4.1/24"', "write 10.5.4.0/24"),
    ('address = "10.0.0.1"\nservice_networks = ["here"]', 'network.service_networks[0] = "here": must be a network'),
    ('address = "10.0.0.1"\nlocal_networks = [[]]', "network.local_networks[0]"),
    ('address = "10.0.0.1"\nsip_port = 0', "network.sip_port = 0: must be 1 to 65535"),
    ('address = "10.0.0.1"\nsip_port = 65536', "network.sip_port = 65536: must be 1 to 65535"),
    ('address = "10.0.0.1"\nsip_port = true', "network.sip_port = true: must be a number"),
    ('address = "10.0.0.1"\nsips_port = 5060', "network.sips_port = 5060: must differ from network.sip_port"),
    ('address = "10.0.0.1"\nsip_prot = 5060', "network.sip_prot: unknown"),
    ('address = "10.0.0.1"\n"a\\nb" = 1', 'network."a\\nb": unknown'),
    (
        'address = "10.0.0.1"\nservice_networks = ["10.9.0.0/24", "10.5.4.0/24"]\nlocal_networks = "10.5.4.0/24"',
        "network.service_networks: 10.5.4.0/24 is in network.local_networks too: "
        'write the PBX hosts themselves, such as "10.5.4.5/32"',
    ),
    (
        'address = "10.0.0.1"\nservice_networks = "2001:db8::/64"\nlocal_networks = "2001:db8::/64"',
        'such as "2001:db8::5/128"',
    ),
    (
        'address = "10.0.0.1"\nservice_networks = "10.5.4.5"\nlocal_networks = "10.5.4.5"',
        "10.5.4.5/32 is in network.local_networks too: it must be in one of the two",
    ),
]


@pytest.mark.parametrize(("network", "told"), NETWORK)
def test_a_wrong_network_is_one_line_that_names_key_value_and_what_is_allowed(
    tmp_path: Path, network: str, told: str
) -> None:
    text = refusal(tmp_path, network)
    assert told in text
    assert len(text.splitlines()) == 1
    assert text.startswith(str(tmp_path / "sipward.toml"))


OTHERS = [
    ('fqdn = "a b"', "", 'fqdn = "a b": must be a host name'),
    ('fqdn = "203.0.113.5"', "", "must be a host name"),
    ('fqdn = ""', "", "must be a host name"),
    ("fqdn = 3", "", "fqdn = 3:"),
    ('state_dir = "var"', "", 'state_dir = "var": must be an absolute path'),
    (f'state_dir = "/{"d" * 90}"', "", "state_dir = "),
    ('lets_encrypt = "perhaps"', "", "lets_encrypt = "),
    (
        "lets_encrypt = true",
        '[certificates]\ncertificate = "/a.pem"\nkey = "/k.pem"',
        "certificates.certificate: must be empty with lets_encrypt = true",
    ),
    (
        "",
        '[certificates]\ncertificate = "a.pem"',
        'certificates.certificate = "a.pem": must be empty or an absolute path',
    ),
    ("", "[certificates]\nfolder = 1", "certificates.folder = 1: must be empty or an absolute path"),
    ("", '[certificates]\ncertificate = "/a.pem"', "certificates.key: must be given with certificates.certificate"),
    ("", '[certificates]\nkey = "/k.pem"', "certificates.key: must be given with certificates.certificate"),
    ("", "[certificates]\nreload_interval = 0", "certificates.reload_interval = 0: must be 1 to 86400"),
    ("", '[acme]\ndirectory = "http://ca.example.org"', "must be an https:// URL"),
    ("", '[acme]\ndirectory = "https://"', "must be an https:// URL"),
    ("", '[acme]\nemail = "admin"', 'acme.email = "admin": must be empty or a mail address'),
    ("", '[acme]\neab_key_id = "kid-1"', "acme.eab_key: must be given with acme.eab_key_id"),
    ("", "[acme]\nretry_interval = 0", "acme.retry_interval = 0: must be 1 to 86400"),
    ('log_level = "loud"', "", "should be 'error', 'warning', 'info' or 'debug'"),
    ("colour = 1", "", '"colour": unknown'),
    ('_env_file = "x"', "", '"_env_file": unknown'),
    ("", '[rtp]\nports = "20001-29999"', 'rtp.ports = "20001-29999": must be a range'),
    ("", '[rtp]\nports = "20000-20098"', "must be a range"),
    ("", '[rtp]\nports = "20000"', "must be a range"),
    ("", '[rtp]\nports = "512-2000"', "must be a range"),
    ("", '[rtp]\nports = "60000-65536"', "must be a range"),
    ("", '[rtp]\nports = "29998-20000"', "must be a range"),
    ("", '[rtp]\nports = "5000-6000"', "rtp.ports: 5000-6000 must not contain network.sip_port (5060)"),
    ("", '[rtp]\nports = "5060-6000"', "must not contain network.sip_port (5060)"),
    ("", '[rtp]\nports = "2000-2223"', "must not contain rtp.control (2223)"),
    ("", '[tls]\nclient_certificates = "required"', "tls.client_certificates: needs tls.client_ca"),
    ("", '[tls]\nclient_certificates = "perhaps"', "should be 'optional' or 'required'"),
    ("", '[tls.profiles."A b"]', '"A b" must be 1 to 64 of a-z, 0-9, _ and -'),
    ("", '[tls.profiles.a]\nkey = "/x.pem"', "tls.profiles.a.key: must be given with its certificate"),
    ("", "[tls.profiles.a]\ncertificates = 1", "tls.profiles.a.certificates: unknown"),
    ("", '[tls]\nprofiles = "x"', "tls.profiles = "),
    ("", '[trunks]\nown_ports = "5100"', 'trunks.own_ports = "5100": must be empty, or a range'),
    ("", "[trunks]\nown_ports = 5100", "trunks.own_ports = 5100: must be empty, or a range"),
    ("", '[trunks]\nown_ports = "5101-5100"', "must be empty, or a range"),
    ("", '[trunks]\nown_ports = "1000-1030"', "must be empty, or a range"),
    ("", '[trunks]\nown_ports = "65500-65536"', "must be empty, or a range"),
    ("", '[trunks]\nown_ports = "5100-5200"', "at most 100 ports"),
    ("", '[trunks]\nown_ports = "5050-5060"', "trunks.own_ports: 5050-5060 must not contain network.sip_port (5060)"),
    ("", '[trunks]\nown_ports = "5061-5070"', "must not contain network.sips_port (5061)"),
    ("", '[trunks]\nown_ports = "2223-2223"', "must not contain rtp.control (2223)"),
    ("", '[trunks]\nown_ports = "29999-30001"', "must not contain rtp.ports (20000-29999)"),
    ("", '[rtp]\ncontrol = "10.0.0.1:2223"', "must be a loopback address and port"),
    ("", '[rtp]\ncontrol = "127.0.0.1:0"', "must be a loopback address and port"),
    ("", "[rtp]\ncontrol = 2223", "must be a loopback address and port"),
    ("", "[sip]\nworkers = 0", "sip.workers = 0: must be 1 to 64"),
    ("", "[sip]\nworkers = 65", "sip.workers = 65: must be 1 to 64"),
    ("", "[sip]\nworkers = 2.5", "sip.workers = 2.5:"),
    ("", "[sip]\ninstance_timeout = 0.1", "sip.instance_timeout = 0.1: must be 0.2 to 30.0"),
    ("", "[sip]\ninstance_timeout = nan", "must be 0.2 to 30.0"),
    ("", "[sip]\ninstance_timeout = true", "must be a number"),
    ("", "[sip]\nring_timeout = 0.9", "sip.ring_timeout = 0.9: must be 1.0 to 600.0"),
    ("", '[rtp]\nstore = "10.0.0.1:2224"', "rtp.store"),
    ("", "[rtp]\nweight = 0", "rtp.weight: may be 0 only beside others that take calls"),
    ("", '[rtp]\nweight = 0\nothers = "192.0.2.2:2223=0"', "rtp.weight: may be 0 only"),
    ("", '[rtp]\nothers = "example.org:2223"', "must be an address and port such as 192.0.2.2:2223"),
    ("", '[rtp]\nothers = "192.0.2.2:2223=101"', "must be an address and port such as 192.0.2.2:2223"),
    ("", '[rtp]\nlearning = "never"', 'rtp.learning = "never"'),
    ("", "[rtp]\ntenant_share = 0", "rtp.tenant_share = 0: must be 1 to 100"),
    ("", "[rtp]\nsource_share = 101", "rtp.source_share = 101: must be 1 to 100"),
    ("", "[sip]\nkeepalive = 0.5", "sip.keepalive = 0.5: must be 0 (none) or 1.0 to 120.0"),
    ("", "[sip]\nkeepalive = nan", "must be 0 (none) or 1.0 to 120.0"),
    ("", "[health]\ninterval = 0.5", "health.interval = 0.5: must be 0 (none) or 1.0 to 3600.0"),
    ("", "[health]\ninterval = -1", "must be 0 (none) or 1.0 to 3600.0"),
    ("", "[health]\ninterval = 3601", "must be 0 (none) or 1.0 to 3600.0"),
    ("", "[health]\ninterval = nan", "must be 0 (none) or 1.0 to 3600.0"),
    ("", "[health]\ntimeout = 31", "health.timeout = 31: must be 0.2 to 30.0"),
    ("", "[health]\nthreshold = 0", "health.threshold = 0: must be 1 to 10"),
    ("", "[health]\nthreshold = true", "must be a number"),
    ("", '[redis]\nurl = "http://h"', "redis.url: must be empty"),
    ("", '[redis]\nurl = "redis://"', "redis.url: must be empty"),
    ("", '[redis]\nurl = "redis://h:0"', "redis.url: must be empty"),
    ("", '[redis]\nurl = "unix:"', "redis.url: must be empty"),
]


@pytest.mark.parametrize(("top", "rest", "told"), OTHERS)
def test_any_other_wrong_value_is_one_line_too(tmp_path: Path, top: str, rest: str, told: str) -> None:
    text = refusal(tmp_path, top=top, rest=rest)
    assert told in text
    assert len(text.splitlines()) == 1


def test_a_name_that_is_missing_is_named(tmp_path: Path) -> None:
    file = tmp_path / "sipward.toml"
    file.write_text('[network]\ninterface = "eth0"\n')
    with pytest.raises(SettingsError, match=r"fqdn: missing"):
        settings.load(file)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = refusal(tmp_path, 'address = "x"\nsip_port = 0', top='fqdn = "a b"\ncolour = 1')
    keys = ["fqdn", "network.address[0]", "network.sip_port", '"colour"']
    assert all(any(f" {key}" in line for line in text.splitlines()) for key in keys)
    assert len(text.splitlines()) == len(keys)


@pytest.mark.parametrize(
    "rest",
    [
        f'[redis]\nurl = "http://u:{SECRET}@h"',
        f'[redis]\nurl = "redis://u:{SECRET}@h:99999"',
        f'[redis]\nurl = ["redis://u:{SECRET}@h"]',
        f'[redis]\npassword = "{SECRET}"',
    ],
)
def test_a_password_is_never_printed(tmp_path: Path, rest: str) -> None:
    assert SECRET not in refusal(tmp_path, rest=rest)
    assert SECRET not in refusal(tmp_path, top=f'redis = "redis://u:{SECRET}@h"')
    assert SECRET not in repr(load(tmp_path, rest=f'[redis]\nurl = "redis://u:{SECRET}@h"'))


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"fqdn = ", "is not TOML"), (b"\xff", "is not UTF-8"), (b"fqdn = 'a'\nfqdn = 'b'", "is not TOML")],
)
def test_a_file_that_is_no_toml_is_one_line(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "sipward.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=re.escape(f"{file}: {told}")):
        settings.load(file)


def test_a_file_that_is_missing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        settings.load(tmp_path / "none.toml")


ENVIRONMENT = [
    ("SIPWARD_FQDN", "b.example.org", lambda s: s.fqdn, "b.example.org"),
    ("SIPWARD_STATE_DIR", "/x", lambda s: s.state_dir, Path("/x")),
    ("SIPWARD_LETS_ENCRYPT", "false", lambda s: s.lets_encrypt, False),
    ("SIPWARD_CERTIFICATES__CERTIFICATE", "", lambda s: s.certificates.certificate, None),
    ("SIPWARD_CERTIFICATES__KEY", "", lambda s: s.certificates.key, None),
    ("SIPWARD_CERTIFICATES__FOLDER", "/certs", lambda s: s.certificates.folder, Path("/certs")),
    ("SIPWARD_CERTIFICATES__CA_FILE", "/ca.pem", lambda s: s.certificates.ca_file, Path("/ca.pem")),
    ("SIPWARD_CERTIFICATES__RELOAD_INTERVAL", "90", lambda s: s.certificates.reload_interval, 90),
    ("SIPWARD_ACME__DIRECTORY", "https://ca.example/dir", lambda s: s.acme.directory, "https://ca.example/dir"),
    ("SIPWARD_ACME__EMAIL", "admin@example.org", lambda s: s.acme.email, "admin@example.org"),
    ("SIPWARD_ACME__EAB_KEY_ID", "", lambda s: s.acme.eab_key_id, ""),
    ("SIPWARD_ACME__EAB_KEY", "", lambda s: s.acme.eab_key, ""),
    ("SIPWARD_ACME__RETRY_INTERVAL", "60", lambda s: s.acme.retry_interval, 60),
    ("SIPWARD_LOG_LEVEL", "debug", lambda s: s.log_level, "debug"),
    (
        "SIPWARD_NETWORK__ADDRESS",
        "10.1.1.1,2001:db8::7",
        lambda s: s.network.address,
        addresses("10.1.1.1", "2001:db8::7"),
    ),
    ("SIPWARD_NETWORK__PUBLIC_ADDRESS", "1.2.3.4", lambda s: s.network.public_address, addresses("1.2.3.4")),
    ("SIPWARD_NETWORK__PUBLIC_ADDRESS", "", lambda s: s.network.public_address, ()),
    ("SIPWARD_NETWORK__SERVICE_ADDRESS", "10.2.2.2", lambda s: s.network.service_address, addresses("10.2.2.2")),
    (
        "SIPWARD_NETWORK__SERVICE_NETWORKS",
        "10.0.0.0/8, ::1/128",
        lambda s: s.network.service_networks,
        (ip_network("10.0.0.0/8"), ip_network("::1/128")),
    ),
    ("SIPWARD_NETWORK__LOCAL_NETWORKS", "10.0.0.0/8", lambda s: s.network.local_networks, (ip_network("10.0.0.0/8"),)),
    ("SIPWARD_NETWORK__SIP_PORT", "6060", lambda s: s.network.sip_port, 6060),
    ("SIPWARD_NETWORK__SIPS_PORT", "6061", lambda s: s.network.sips_port, 6061),
    ("SIPWARD_RTP__PORTS", "30000-39999", lambda s: s.rtp.ports, PortRange(30000, 39999)),
    ("SIPWARD_RTP__CONTROL", "[::1]:99", lambda s: s.rtp.control, Control(ip_address("::1"), 99)),
    ("SIPWARD_REDIS__URL", "redis://h", lambda s: s.redis_url, "redis://h"),
    ("SIPWARD_SIP__WORKERS", "7", lambda s: s.sip.workers, 7),
    ("SIPWARD_SIP__INSTANCE_TIMEOUT", "0.5", lambda s: s.sip.instance_timeout, 0.5),
    ("SIPWARD_SIP__RING_TIMEOUT", "60", lambda s: s.sip.ring_timeout, 60.0),
    ("SIPWARD_RTP__STORE", "", lambda s: s.rtp.store, None),
    ("SIPWARD_RTP__WEIGHT", "3", lambda s: s.rtp.weight, 3),
    (
        "SIPWARD_RTP__OTHERS",
        "192.0.2.2:2223, [2001:db8::2]:99=4",
        lambda s: [*map(str, s.rtp.others)],
        ["192.0.2.2:2223=1", "[2001:db8::2]:99=4"],
    ),
    ("SIPWARD_RTP__LEARNING", "always", lambda s: s.rtp.learning, "always"),
    ("SIPWARD_RTP__TENANT_SHARE", "25", lambda s: s.rtp.tenant_share, 25),
    ("SIPWARD_RTP__SOURCE_SHARE", "100", lambda s: s.rtp.source_share, 100),
    ("SIPWARD_SIP__KEEPALIVE", "0", lambda s: s.sip.keepalive, 0),
    ("SIPWARD_NUMBERS__COUNTRY_CODE", "49", lambda s: s.numbers.plan, Plan("49", "00", "")),
    ("SIPWARD_NUMBERS__INTERNATIONAL_PREFIX", "011", lambda s: s.numbers.plan, Plan("", "011", "")),
    ("SIPWARD_NUMBERS__NATIONAL_PREFIX", "0", lambda s: s.numbers.plan, Plan("", "00", "0")),
    ("SIPWARD_DNS__SERVERS", "192.0.2.53,::1", lambda s: s.dns.servers, addresses("192.0.2.53", "::1")),
    ("SIPWARD_HEALTH__INTERVAL", "60", lambda s: s.health.interval, 60),
    ("SIPWARD_HEALTH__TIMEOUT", "0.5", lambda s: s.health.timeout, 0.5),
    ("SIPWARD_HEALTH__THRESHOLD", "3", lambda s: s.health.threshold, 3),
    ("SIPWARD_TLS__CLIENT_CA", "/x.pem", lambda s: s.tls.client_ca, Path("/x.pem")),
    ("SIPWARD_TLS__CLIENT_CERTIFICATES", "optional", lambda s: s.tls.client_certificates, "optional"),
    (
        "SIPWARD_TLS__PROFILES",
        '{"telco": {"ca": "/x.pem"}}',
        lambda s: s.tls.profiles["telco"].ca,
        Path("/x.pem"),
    ),
    ("SIPWARD_TRUNKS__OWN_PORTS", "5100-5101", lambda s: list(s.trunks.own_ports), [5100, 5101]),
]


@pytest.mark.parametrize(("name", "value", "read", "expected"), ENVIRONMENT)
def test_the_environment_wins_over_the_file(tmp_path, monkeypatch, name, value, read, expected) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv(name, value)
    rest = '[rtp]\nports = "40000-49999"\n[redis]\nurl = "unix:///x"\n[sip]\nworkers = 2\ninstance_timeout = 9'
    network = 'address = "203.0.113.5"\npublic_address = "5.6.7.8"\nservice_networks = "10.9.0.0/16"\nsip_port = 5070'
    assert read(load(tmp_path, network, rest=rest)) == expected


def test_every_key_can_come_from_the_environment() -> None:
    tested = {name for name, *_ in ENVIRONMENT} | {"SIPWARD_NETWORK__INTERFACE"}
    tables = {"network", "rtp", "redis", "sip", "numbers", "dns", "health", "trunks", "certificates", "acme", "tls"}
    keys = {f"SIPWARD_{key}".upper() for key in Settings.model_fields.keys() - tables}
    for table in tables:
        fields = Settings.model_fields[table].annotation.model_fields  # type: ignore[union-attr]
        keys |= {f"SIPWARD_{table}__{key}".upper() for key in fields}
    assert tested == keys


def test_an_interface_in_the_environment_wins_when_the_address_is_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIPWARD_NETWORK__INTERFACE", "eth1")
    assert "exactly one" in refusal(tmp_path)
    monkeypatch.setenv("SIPWARD_NETWORK__ADDRESS", "")
    assert load(tmp_path).network.interface == "eth1"


def test_the_environment_wins_over_what_the_file_may_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIPWARD_LETS_ENCRYPT", "false")
    assert load(tmp_path, top='lets_encrypt = "perhaps"').lets_encrypt is False
    monkeypatch.setenv("SIPWARD_LETS_ENCRYPT", "perhaps")
    assert refusal(tmp_path).startswith('SIPWARD_LETS_ENCRYPT: lets_encrypt = "perhaps": ')


def test_the_key_of_an_external_account_is_not_shown(tmp_path: Path) -> None:
    text = refusal(tmp_path, rest='[acme]\neab_key_id = "kid-1"\neab_key = "s3cret!"')
    assert "acme.eab_key: must be the key as the CA gives it: base64url" in text
    assert "s3cret" not in text


def test_a_wrong_value_of_the_environment_is_blamed_on_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIPWARD_NETWORK__SIP_PORT", "nought")
    assert refusal(tmp_path).startswith('SIPWARD_NETWORK__SIP_PORT: network.sip_port = "nought": ')


def test_what_the_launcher_is_told_by_that_prefix_is_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SIPWARD_ROOT", "SIPWARD_MIRROR", "SIPWARD_RUN"):
        monkeypatch.setenv(name, "/x")
    assert load(tmp_path).fqdn == "sip.example.org"


@pytest.mark.parametrize("name", ["SIPWARD_FQDNN", "sipward_fqdnn", "SIPWARD_NETWROK__SIP_PORT", "SIPWARD_"])
def test_a_mistyped_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, SECRET)
    assert refusal(tmp_path) == f"{name}: unknown, no such variable"
    monkeypatch.setenv("SIPWARD_NETWORK__SIP_PORT", "nought")
    first, second = refusal(tmp_path).splitlines()
    assert first == f"{name}: unknown, no such variable"
    assert second.startswith("SIPWARD_NETWORK__SIP_PORT: network.sip_port")


@pytest.mark.parametrize(
    ("name", "told"), [("SIPWARD_NETWORK__SIP_PROT", "network.sip_prot: unknown"), ("SIPWARD_NETWORK", "network")]
)
def test_a_mistyped_variable_of_a_table_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    monkeypatch.setenv(name, "1")
    assert told in refusal(tmp_path).lower()


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("public", lambda n: n.interface and not n.public_address),
        ("behind-nat", lambda n: n.interface and n.public_address and n.local_networks),
        ("local-only", lambda n: n.local_networks and not n.public_address),
        ("several-addresses", lambda n: len(n.address) == 2 and n.interface is None),
    ],
)
def test_each_example_is_a_configuration_of_its_kind(name: str, check) -> None:  # type: ignore[no-untyped-def]
    found = settings.load(EXAMPLES / f"{name}.toml")
    assert check(found.network)
    assert found.network.service_networks


def test_each_example_is_tested() -> None:
    assert len(list(EXAMPLES.iterdir())) == 4


def test_the_defaults_shown_in_the_example_are_the_defaults(tmp_path: Path) -> None:
    text = (EXAMPLES / "public.toml").read_text()
    shown = tmp_path / "shown.toml"
    shown.write_text(re.sub(r"(?m)^# (\w+ = .*)$", r"\1", text))
    assert shown.read_text() != text
    assert settings.load(shown) == settings.load(EXAMPLES / "public.toml")
