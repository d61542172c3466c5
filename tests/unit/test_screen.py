"""Which descriptions are refused before rtpengine sees them, and that what phones really say is none of them."""

import pytest

from sipward import screen
from sipward.decision import Answer
from sipward.edge import CARRIER
from sipward.model import Side
from unit.recorder import INNER, PUBLIC, SOCKETS, edge

HEAD = "v=0\r\no=- 1 1 IN IP4 198.51.100.7\r\ns=-\r\nt=0 0\r\n"
HOST = "c=IN IP4 198.51.100.7\r\n"
AUDIO = "m=audio 4000 RTP/AVP 0\r\n"
PLAIN = HEAD + HOST + AUDIO
CANDIDATE = "a=candidate:1 1 UDP 2130706431 198.51.100.7 4000 typ host\r\n"


def refused(description: str, side: Side = Side.OUTSIDE) -> Answer | None:
    found = screen.look(description, edge(sockets=SOCKETS).may_have_media[side])
    return found if isinstance(found, Answer) else None


TAKEN = {
    "plain": PLAIN,
    "lines that end with LF alone": PLAIN.replace("\r\n", "\n"),
    "nothing at all": "",
    "on hold as RFC 2543 says": PLAIN.replace("198.51.100.7\r\nm", "0.0.0.0\r\nm"),
    "on hold, IPv6": HEAD + "c=IN IP6 ::\r\n" + AUDIO,
    "IPv6": HEAD + "c=IN IP6 2001:db8::7\r\n" + AUDIO,
    "behind a NAT": HEAD + "c=IN IP4 192.168.1.4\r\n" + AUDIO,
    "a stream that is refused": HEAD + HOST + "m=video 0 RTP/AVP 96\r\n" + AUDIO,
    "a fax": HEAD + HOST + "m=image 4000 udptl t38\r\n",
    "a connection of its own to make": HEAD + HOST + "m=message 9 TCP/MSRP *\r\n",
    "an RTCP port": PLAIN + "a=rtcp:4001\r\n",
    "an RTCP address": PLAIN + "a=rtcp:4001 IN IP4 198.51.100.7\r\n",
    "a browser's": PLAIN.replace(" 4000 ", " 9 ") + "a=rtcp:9 IN IP4 0.0.0.0\r\n" + 30 * CANDIDATE,
    "a browser's that hides its address": PLAIN + CANDIDATE.replace("198.51.100.7", "f00d.local"),
    "an attribute that only begins alike": PLAIN + "a=rtcp-mux\r\na=rtcp-fb:* nack\r\n",
    "as many streams as may be": HEAD + HOST + screen.MOST_STREAMS * AUDIO,
    "as many candidates as may be": PLAIN + screen.MOST_CANDIDATES * CANDIDATE,
}


@pytest.mark.parametrize("description", TAKEN.values(), ids=TAKEN)
def test_what_phones_say_is_taken(description: str) -> None:
    assert [refused(description, side) for side in Side] == [None, None, None]


REFUSED = {
    "60 kB": (PLAIN + 6000 * "a=x:12345\r\n", screen.TOO_LARGE),
    "10,000 streams": (HEAD + HOST + 10_000 * AUDIO, screen.TOO_LARGE),
    "more streams than may be": (HEAD + HOST + (screen.MOST_STREAMS + 1) * AUDIO, screen.TOO_MANY_STREAMS),
    "streams with many ports each": (HEAD + HOST + 2 * "m=audio 4000/9 RTP/AVP 0\r\n", screen.TOO_MANY_STREAMS),
    "more candidates than may be": (PLAIN + (screen.MOST_CANDIDATES + 1) * CANDIDATE, screen.TOO_MANY_CANDIDATES),
    **{
        f"port {port}": (PLAIN.replace(" 4000 ", f" {port} "), screen.BAD_PORT)
        for port in ("65536", "70000", "99999999", "-1", "1", "53", "1023", "x", "", "4000/999", "0x10")
    },
    "an RTCP port that is none": (PLAIN + "a=rtcp:65536\r\n", screen.BAD_PORT),
    "the RTCP port of another service": (PLAIN + "a=rtcp:53\r\n", screen.BAD_PORT),
    **{
        f"{kind} {host}": (text, screen.BAD_ADDRESS)
        for kind, host in (
            ("IP4", "127.0.0.1"),
            ("IP4", "127.1.2.3"),
            ("IP4", "224.0.0.1"),
            ("IP4", "239.255.255.250/127"),
            ("IP4", "pbx.example.org"),
            ("IP6", "::1"),
            ("IP6", "::ffff:127.0.0.1"),
            ("IP6", "ff02::1"),
        )
        for text in (
            f"{HEAD}c=IN {kind} {host}\r\n{AUDIO}",
            f"{PLAIN}c=IN {kind} {host}\r\n",
            f"{PLAIN}a=rtcp:4001 IN {kind} {host}\r\n",
        )
    },
    "an address of no kind": (HEAD + "c=IN IP7 198.51.100.7\r\n" + AUDIO, screen.BAD_ADDRESS),
    "half a line": (HEAD + "c=IN IP4 \r\n" + AUDIO, screen.BAD_ADDRESS),
    "behind a CR alone": (PLAIN + "a=x\rc=IN IP4 127.0.0.1\r\n", screen.BAD_ADDRESS),
    "a candidate that cannot be read": (PLAIN + "a=candidate:\r\n", screen.BAD_ADDRESS),
    "a candidate without a foundation": (PLAIN + CANDIDATE.replace(":1 1", ": 1"), screen.BAD_ADDRESS),
    "a candidate with a long port": (PLAIN + CANDIDATE.replace(" 4000 ", " 004000 "), screen.BAD_ADDRESS),
    "a candidate on loopback": (PLAIN + CANDIDATE.replace("198.51.100.7", "127.0.0.1"), screen.BAD_ADDRESS),
}


@pytest.mark.parametrize(("description", "why"), REFUSED.values(), ids=REFUSED)
def test_what_would_take_too_much_or_reach_what_it_should_not_is_refused(description: str, why: Answer) -> None:
    assert [refused(description, side) for side in Side] == [why, why, why]


SITE = "203.0.113.1"
"""What a router has for the node, and for every phone of the site."""


@pytest.mark.parametrize(
    ("host", "refusing"),
    [
        (PUBLIC.local.host, {Side.OUTSIDE, Side.LOCAL}),
        (INNER.local.host, {Side.OUTSIDE, Side.LOCAL}),
        # A phone of the site may take the site's public address for its own.
        (SITE, {Side.OUTSIDE}),
    ],
)
def test_our_own_addresses_are_for_instances_alone(host: str, refusing: set[Side]) -> None:
    node = edge(sockets=(PUBLIC._replace(public=SITE), INNER))
    description = HEAD + f"c=IN IP4 {host}\r\n" + AUDIO
    # A carrier may lead a call back to us.
    assert isinstance(screen.look(description, node.may_have_media[CARRIER]), Answer) is (host == INNER.local.host)
    assert {
        side for side in Side if isinstance(screen.look(description, node.may_have_media[side]), Answer)
    } == refusing


def test_instances_on_loopback_are_heard_there() -> None:
    node = edge(sockets=SOCKETS, service_networks=["127.0.0.0/8"])
    assert [node.may_have_media[side]("127.0.0.1") for side in Side] == [False, False, True]


def test_what_a_description_asks_for() -> None:
    description = PLAIN + "m=video 5000 RTP/AVP 96\r\nc=IN IP4 198.51.100.8/127\r\na=rtcp:5001 IN IP4 198.51.100.9\r\n"
    asked = screen.look(description, edge().may_have_media[Side.OUTSIDE])
    assert asked == screen.Asked(2, {"198.51.100.7", "198.51.100.8"})
