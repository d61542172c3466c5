"""Descriptions in bodies: found, put back, cleared."""

import pytest

from sipward import sdp
from sipward.model import Srtp

SDP = "v=0\r\no=- 1 1 IN IP4 10.5.4.11\r\ns=-\r\nc=IN IP4 10.5.4.11\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
OTHER = "v=0\r\nm=audio 9 RTP/AVP 8\r\n"
TEXT = "Content-Type: text/plain\r\n\r\nv=0\r\n"
PART = "Content-Type: application/sdp\r\n\r\n"


def is_inner(text: str) -> bool:
    return "10.5.4." in text


# --- found and put back ----------------------------------------------------------------------------------------------

FOUND = [
    ("application/sdp", "{}"),
    ("application/sdp;charset=utf-8", "{}"),
    (" Application/SDP", "{}"),
    ("multipart/mixed;boundary=x", f"--x\r\n{PART}{{}}\r\n--x--\r\n"),
    ("Multipart/Related; BOUNDARY=x;type=a", f"--x\r\n{PART}{{}}\r\n--x--\r\n"),
    ('multipart/mixed; boundary="a b:c"; q=1', f"--a b:c\r\n{PART}{{}}\r\n--a b:c--"),
    ("multipart/mixed ; boundary = x", f"--x\r\n{PART}{{}}\r\n--x--"),
    ("multipart/mixed;boundary=x.+(", f"--x.+(\r\n{PART}{{}}\r\n--x.+(--"),
    ("multipart/mixed;boundary=x", f"a word before\r\n--x\r\n{PART}{{}}\r\n--x--\r\na word after"),
    ("multipart/mixed;boundary=x", f"--x\r\n{TEXT}\r\n--x\r\n{PART}{{}}\r\n--x--\r\n"),
    ("multipart/mixed;boundary=x", f"--x\r\n{PART}{{}}\r\n--x\r\n{TEXT}\r\n--x--\r\n"),
    ("multipart/mixed;boundary=x", f"--x\r\n\r\nof no type\r\n--x\r\n{PART}{{}}\r\n--x--\r\n"),
    ("multipart/mixed;boundary=x", f"--x\r\n{PART}{{}}\r\n--x\r\n{PART}{OTHER}\r\n--x--\r\n"),
    ("multipart/mixed;boundary=x", "--x\r\nContent-ID: <1@h>\r\nCONTENT-TYPE : Application/SDP\r\n\r\n{}\r\n--x--"),
    ("multipart/mixed;boundary=x", "--x\r\nc: application/sdp;q=1\r\nContent-ID: <1@h>\r\n\r\n{}\r\n--x--"),
    ("multipart/mixed;boundary=x", f"--x\r\n{PART}{{}}--x--\r\n"),
]


@pytest.mark.parametrize(("kind", "body"), FOUND)
def test_the_description_of_a_body_is_found_and_another_takes_its_place(kind: str, body: str) -> None:
    assert sdp.find(kind, body.format(SDP)) == SDP
    assert sdp.put(kind, body.format(SDP), OTHER) == body.format(OTHER)
    assert sdp.put(kind, body.format(SDP), SDP) == body.format(SDP)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("", SDP),
        ("text/plain", SDP),
        ("multipart/mixed", f"--x\r\n{PART}{SDP}\r\n--x--"),
        ("multipart/mixed;boundary=y", f"--x\r\n{PART}{SDP}\r\n--x--"),
        ("multipart/mixed;boundary=x", ""),
        ("multipart/mixed;boundary=x", "--x--"),
        ("multipart/mixed;boundary=x", f"--x\r\n{TEXT}\r\n--x--"),
        ("multipart/mixed;boundary=x", f"--x\r\nContent-Type: text/plain\r\n\r\n{PART}{SDP}\r\n--x--"),
        ("multipart/mixed;boundary=x", f"--x\r\n{PART}{SDP}"),
        ("multipart/mixed;boundary=x", f"--x\r\n{TEXT}\r\n--x\r\n{PART}{SDP}"),
        ("multipart/mixed;boundary=x", f"--x\r\nContent-Type: application/sdp\r\n--x\r\n\r\n{SDP}--x--"),
    ],
)
def test_a_body_without_a_whole_description_has_none(kind: str, body: str) -> None:
    assert sdp.find(kind, body) == ""


# --- cleared ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("a=x-nat:10.5.4.11", ""),
        ("a=source-filter: incl IN IP4 * 10.5.4.11", ""),
        ("i=from 10.5.4.11", ""),
        ("u=http://10.5.4.11/", ""),
        ("e=a@10.5.4.11", ""),
        ("s=PBX at 10.5.4.11", "s=-\r\n"),
        ("o=pbx 1 1 IN IP4 10.5.4.11", "o=- 0 0 IN IP4 0.0.0.0\r\n"),
        ("c=IN IP4 10.5.4.11", "c=IN IP4 0.0.0.0\r\n"),
        ("c=IN IP4 203.0.113.10", "c=IN IP4 203.0.113.10\r\n"),
        ("a=sendrecv", "a=sendrecv\r\n"),
        ("", "\r\n"),
    ],
)
@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_a_line_that_names_the_inside_goes_or_says_none(line: str, left: str, end: str) -> None:
    before, after = "v=0\r\n", "m=audio 4000 RTP/AVP 0\r\n"
    text = f"{before}{line}\r\n{after}".replace("\r\n", end)
    assert sdp.cleared(text, is_inner) == before + left + after


def test_all_lines_are_cleared_and_their_order_stays() -> None:
    text = f"{SDP}a=x:10.5.4.12\r\nm=message 9 TCP/MSRP *\r\nc=IN IP4 10.5.4.12\r\na=path:msrp://10.5.4.12/x;tcp\r\n"
    assert sdp.cleared(text, is_inner) == (
        "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
        "m=message 9 TCP/MSRP *\r\nc=IN IP4 0.0.0.0\r\n"
    )


def test_a_description_with_nothing_inside_stays_as_it_is() -> None:
    assert sdp.cleared(OTHER, is_inner) == OTHER


V4, V6, PRIVATE = "c=IN IP4 203.0.113.30", "c=IN IP6 2001:db8::30", "c=IN IP4 192.168.1.20"
STREAM = "m=audio 4000 RTP/AVP 8"


@pytest.mark.parametrize(
    ("lines", "from_ipv4", "from_ipv6"),
    [
        ([V4, STREAM], False, True),
        ([V6, STREAM], True, False),
        ([V4, STREAM, V6], True, False),
        ([V6, STREAM, V4], False, True),
        ([V4, STREAM, STREAM, V6], False, False),
        ([V4, STREAM, V6, STREAM, V6], True, False),
        ([STREAM, V4], False, True),
        ([PRIVATE, STREAM], False, False),
        (["c=IN IP4 0.0.0.0", STREAM], False, False),
        (["c=IN IP4 phone.example", STREAM], False, False),
        (["c=IN IP6 fd00::7", STREAM], False, False),
        ([V4], False, False),
        ([], False, False),
    ],
)
def test_streams_of_the_other_family(lines: list[str], from_ipv4: bool, from_ipv6: bool) -> None:
    description = "\r\n".join(["v=0", *lines, ""])
    assert sdp.names_other_family(description, ipv6=False) is from_ipv4
    assert sdp.names_other_family(description, ipv6=True) is from_ipv6


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (["m=audio 4000 RTP/AVP 0"], Srtp.OFF),
        (["m=audio 4000 RTP/SAVP 0", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x"], Srtp.SDES),
        (["m=audio 4000 RTP/AVP 0", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x"], Srtp.SDES),
        (["m=audio 4000 RTP/SAVP 0", "a=fingerprint:sha-256 4A", "a=crypto:1 X inline:x"], Srtp.SDES),
        (["a=fingerprint:sha-256 4A", "m=audio 4000 UDP/TLS/RTP/SAVPF 0"], Srtp.DTLS),
        (["a=fingerprint:sha-256 4A", "m=audio 4000 RTP/AVP 0"], Srtp.OFF),
        (["m=audio 4000 RTP/AVP 0", "a=x-crypto:no"], Srtp.OFF),
    ],
)
@pytest.mark.parametrize("ends", ["\r\n", "\n"])
def test_what_a_description_offers(ends: str, lines: list[str], kind: Srtp) -> None:
    assert sdp.srtp(ends.join(["v=0", *lines, ""])) is kind


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["PCMA"], "8 0 96 101"),
        (["opus", "pcma"], "96 8 0 101"),
        (["G729"], "0 8 96 101"),
        (["telephone-event", "PCMU"], "101 0 8 96"),
    ],
)
@pytest.mark.parametrize("ends", ["\r\n", "\n"])
def test_codecs_are_put_in_order_whether_they_are_mapped_or_not(ends: str, names: list[str], expected: str) -> None:
    video = ["m=video 4002 RTP/AVP 97 96", "a=rtpmap:96 VP8/90000"]
    mapped = ["a=rtpmap:96 opus/48000/2", "a=rtpmap:101 telephone-event/8000"]
    text = ends.join(["v=0", "t=0 0", "m=audio 4000 RTP/AVP 0 8 96 101", *mapped, *video, ""])
    assert sdp.ordered(text, names) == text.replace("AVP 0 8 96 101", f"AVP {expected}")


def test_a_media_line_that_says_nothing_stays_as_it_is() -> None:
    for text in ("v=0\r\nm=audio\r\n", "v=0\r\nm=audio 4000\r\n", "v=0", "", "v=0\r\nm=audio 0 RTP/AVP"):
        assert sdp.ordered(text, ["PCMA"]) == text
