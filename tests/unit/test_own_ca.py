"""The node's own CA, as openssl sees what it issues."""

import subprocess
from ipaddress import ip_address
from pathlib import Path

from sipward import own_ca
from sipward.certificates import Certificates


def openssl(*arguments: object) -> str:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_what_it_issues_verifies_for_the_name_and_the_addresses(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    addresses = [ip_address("203.0.113.1"), ip_address("2001:db8::1")]
    issued = own_ca.issue(certificates, "sip.example.org", "sip.example.org", addresses)
    check = ("verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", certificates.ca)
    for option, covered in (("-verify_hostname", "sip.example.org"), *(("-verify_ip", one) for one in addresses)):
        assert openssl(*check, option, covered, issued.chain) == f"{issued.chain}: OK\n"
    assert "hostname mismatch" in openssl(*check, "-verify_hostname", "other.example.org", issued.chain)
    public = openssl("pkey", "-in", issued.key, "-pubout")
    assert public == openssl("x509", "-in", issued.chain, "-pubkey", "-noout")


def test_all_are_of_one_ca(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    own_ca.issue(certificates, "sip.example.org", "sip.example.org")
    ca = certificates.ca.read_bytes()
    issued = own_ca.issue(certificates, "*.example.com", "sip.example.org")
    assert certificates.ca.read_bytes() == ca
    check = ("verify", "-x509_strict", "-CAfile", certificates.ca, "-verify_hostname", "pbx.example.com", issued.chain)
    assert openssl(*check) == f"{issued.chain}: OK\n"


def test_a_set_up_that_was_broken_off_is_done_again(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    own_ca.issue(certificates, "sip.example.org", "sip.example.org")
    certificates.ca.unlink()
    certificates.ca_key.write_text("half a k")
    issued = own_ca.issue(certificates, "sip.example.org", "sip.example.org")
    assert openssl("verify", "-CAfile", certificates.ca, issued.chain) == f"{issued.chain}: OK\n"
