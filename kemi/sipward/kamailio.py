"""The only module that speaks to Kamailio: facts of the running message in, SIP verbs out."""

import time
from binascii import crc32
from collections.abc import Iterator
from contextlib import contextmanager

import KSR
from sipward import icmp, sdp
from sipward.decision import Request
from sipward.live import HEALTH, RESTING
from sipward.model import Endpoint, Side, Socket, Srtp
from sipward.uri import Uri, parse, split_list

_COUNTERS = "counters"
_LOCK = "lock"
"""The key whose slot in a table is locked for the whole of it."""
_READER = "reader"
"""The name of the iterator that reads a whole table."""
_SDP = "$var(sdp)"
"""Where rtpengine's module reads a description and writes what it became (kamailio.cfg)."""


# --- facts of the message ----------------------------------------------------------------------------------------


def method() -> str:
    """The request's method; of a reply, the method in its CSeq."""
    return KSR.pv.getw("$rm")


def call_id() -> str:
    """The Call-ID."""
    return KSR.kx.get_callid() or ""


def source() -> Endpoint:
    """Where the message came from, as seen on the wire."""
    return Endpoint(KSR.kx.get_proto().lower(), _bare(KSR.kx.get_srcip()), int(KSR.kx.get_srcport()))


def source_host() -> str:
    """The address that the message came from, without the rest of `source`."""
    return _bare(KSR.kx.get_srcip())


def received_on() -> int:
    """The index of our socket that received the message, which is its name in the configuration."""
    return int(KSR.kx.get_rcv_sock_name())


def request(side: Side, sender: Endpoint, own_route: Uri | None, call_id: str) -> Request | None:
    """The facts that routing looks at; None when the Request-URI is neither a SIP nor a tel URI."""
    target = parse(uri(), tel=True)
    if target is None:
        return None
    name, described = method(), has_sdp()
    in_dialog = KSR.siputils.has_totag() > 0
    inner, invites = side is Side.SERVICE, name == "INVITE"
    return Request(
        method=name,
        side=side,
        source=sender,
        call_id=call_id,
        uri=target,
        caller=None if in_dialog else parse(KSR.kx.get_furi() or ""),
        callee=None if in_dialog else parse(KSR.kx.get_turi() or ""),
        contact_port=_port(KSR.kx.get_cturi() or "") if inner else 0,
        via_port=int(KSR.pv.get("$via0(port)") or 5060) if inner else 0,
        route=own_route,
        in_dialog=in_dialog,
        has_sdp=described,
        media=crc32((KSR.hdr.get("Via") or "").encode()) if invites else 0,
        header=header,
        srtp=sdp.srtp(body()) if described and invites and not in_dialog else Srtp.OFF,
    )


def routes() -> list[str]:
    """The Route header's values, topmost first."""
    return _values("Route")


def record_routes() -> list[str]:
    """The Record-Route header's values, topmost first."""
    return _values("Record-Route")


def contacts() -> list[str]:
    """The texts of all Contact headers; each may be a list."""
    return _headers("Contact")


def contact() -> str:
    """The first Contact's URI, "" when there is none."""
    return KSR.kx.get_cturi() or ""


def buffer() -> str:
    """The whole message as it stands. Raises UnicodeDecodeError when it is not UTF-8."""
    return KSR.kx.get_msgbuf()


def has_bare_cr() -> bool:
    """Whether the header part has a CR without an LF, which ends a line for some, but not for Kamailio."""
    try:
        head = buffer().partition("\r\n\r\n")[0]
    except UnicodeDecodeError:
        return KSR.textops.search("\r[^\n]") > 0
    return head.count("\r") != head.count("\r\n")


def has_sdp() -> bool:
    """Whether the body is, or may hold, an SDP."""
    kind = content_type().lstrip().lower()
    if kind.startswith("multipart/"):
        return "application/sdp" in body().lower()
    return kind.startswith("application/sdp") and bool(body())


def header(name: str) -> str:
    """The value of a header field, "" when there is none."""
    return KSR.hdr.get(name) or ""


def content_type() -> str:
    """The Content-Type, "" when there is none."""
    return header("Content-Type")


def body() -> str:
    """The body, to the end of the datagram when no Content-Length ends it (RFC 3261, 18.3)."""
    return KSR.pv.get("$rb") or ""


def uri() -> str:
    """The Request-URI; of a failed request, as its transaction began with it."""
    return KSR.kx.get_ruri() or ""


def status() -> int:
    """The status code of the running reply."""
    return int(KSR.pv.get("$rs"))


# --- changes to the message --------------------------------------------------------------------------------------


def set_uri(uri: Uri) -> None:
    """Replace the Request-URI."""
    KSR.seturi(str(uri))


def remove_header(name: str) -> None:
    """Remove all header fields of a name, however it is spelled (RFC 3261, 7.3.1)."""
    KSR.hdr.remove(name)


def add_headers(lines: str) -> None:
    """Add header fields at the end: whole lines, each with its CRLF."""
    KSR.hdr.append(lines)


def set_routes(values: list[str]) -> None:
    """Replace the Route headers."""
    KSR.hdr.remove("Route")
    if values:
        KSR.hdr.append(f"Route: {', '.join(values)}\r\n")


def set_call_id(value: str) -> None:
    """Replace the Call-ID."""
    KSR.hdr.remove("Call-ID")
    KSR.hdr.append(f"Call-ID: {value}\r\n")


def set_record_routes(values: list[str]) -> None:
    """Replace the Record-Route headers."""
    KSR.hdr.remove("Record-Route")
    if values:
        KSR.hdr.append(f"Record-Route: {', '.join(values)}\r\n")


def set_contacts(values: list[str]) -> None:
    """Replace the Contact headers."""
    KSR.hdr.remove("Contact")
    if values:
        KSR.hdr.append(f"Contact: {', '.join(values)}\r\n")


def record_route(hostport: str, params: str) -> None:
    """Put us on top of the Record-Route set under `hostport`."""
    KSR.rr.record_route_preset_one(f"{hostport}{params}")


def set_body(text: str, kind: str) -> None:
    """Replace the body and its Content-Type."""
    KSR.textops.set_body(text, kind)


def remove_body() -> None:
    """Drop the body."""
    KSR.textopsx.remove_body()


def renew_uri() -> None:
    """Set the Request-URI to what it is: in a failure route tm sends only to a URI that was set there."""
    KSR.seturi(uri())


def aim(target: Endpoint, socket: int, known_as: str = "") -> None:
    """Send to `target` from our socket of that index, whatever the Request-URI says.

    `known_as`: the host of our Via, when it is not the socket's own address.
    """
    KSR.setdsturi(target.uri)
    KSR.corex.set_send_socket_name(str(socket))
    if known_as:
        KSR.set_advertised_address(known_as)


def only_over_open_connection() -> None:
    """Never open a connection: a phone behind a NAT can only be reached over its own (RFC 5626, 5.3)."""
    KSR.set_forward_no_connect()


# --- TLS connections to carriers ---------------------------------------------------------------------------------


def connection() -> int:
    """The number of the connection that the message came over; 0 for none."""
    return int(KSR.pv.get("$conid") or 0)


def peer_certificate() -> str:
    """The certificate of who has sent the message over TLS, as PEM; "" for none."""
    return KSR.pv.get("$tls_peer_raw_cert") or ""


def is_peer_trusted() -> bool:
    """Whether that certificate is valid and signed by a CA that is known; whose it is, is another question."""
    return str(KSR.pv.get("$tls_peer_verified")) == "1"


def is_alive(number: int) -> bool:
    """Whether a connection stands."""
    return KSR.tcpops.tcp_conid_alive(number) > 0


def hang_up(number: int) -> None:
    """Close a connection."""
    KSR.tcpops.tcp_close_connection_id(number)


def only_over(number: int) -> bool:
    """Send the request over that connection and no other; False when it does not stand any more."""
    if not is_alive(number):
        return False
    KSR.tcpops.tcp_set_otcpid(number)
    KSR.tcpops.tcp_set_otcpid_flag(1)
    KSR.set_forward_no_connect()
    return True


def say(end: Endpoint, text: str, name: str, profile: str) -> None:
    """Send a whole message over TLS, by a new connection if there is none: to a server of that name, by a profile."""
    # An address is no server name (RFC 6066, 3).
    KSR.pvx.xavp_child_sets("tls", "server_name", "" if name == end.host else name)
    KSR.pvx.xavp_child_sets("tls", "server_id", profile)
    KSR.corex.send_data(end.uri, text)


# --- transactions ------------------------------------------------------------------------------------------------


def is_known_transaction() -> bool:
    """Absorb a retransmission; also matches a CANCEL or an ACK to its INVITE's transaction."""
    return KSR.tm.t_check_trans() > 0


def precheck_transaction() -> bool:
    """Whether another worker is creating this very transaction right now."""
    return KSR.tmx.t_precheck_trans() > 0


def absorb() -> int:
    """`t_check_trans` for what is not a CANCEL: 0 when a retransmission was answered."""
    return KSR.tm.t_check_trans()


def new_transaction() -> bool:
    """Create the transaction from the message as it is now; False for a retransmission. Raises RuntimeError."""
    result = KSR.tm.t_newtran()
    if result < 0:
        raise RuntimeError(f"Kamailio makes no transaction: {result}")
    return result > 0


def relay(timeout: int = 0) -> bool:
    """Send the request on statefully; `timeout`: milliseconds until a silent target is given up, 0 for RFC 3261's."""
    if timeout:
        KSR.tm.t_set_fr(0, timeout)
    return KSR.tm.t_relay() > 0


def keep_unsent() -> None:
    """Let a request that cannot be sent be sent elsewhere, or answered by us: tm would end its transaction."""
    KSR.tm.t_set_disable_internal_reply(1)


def wait_longer(timeout: int) -> None:
    """Give whom the running reply came from so many milliseconds for its next one."""
    KSR.tm.t_set_fr(0, timeout)


def watch(failures: bool) -> None:
    """Ask to see the replies, and the failure too, of the request about to be relayed."""
    KSR.tm.t_on_reply("ksr_reply")
    if failures:
        KSR.tm.t_on_failure("ksr_failure")


def pretend_source(socket: Socket, shown: str) -> None:
    """Make the core take the running request for one from `shown`, so that it writes no true source into the Via."""
    KSR.corex.set_source_address(f"{socket.local.transport}:{shown}")


def set_buffer(text: str) -> None:
    """Replace the whole request; changes made before are lost. Raises ValueError when Kamailio cannot read it."""
    if KSR.textopsx.msg_set_buffer(text) <= 0:
        raise ValueError(f"Kamailio does not take a message of {len(text)} characters")


def keep_needed_headers() -> None:
    """Drop all header fields of a reply but those that it is matched by, and those that it cannot do without."""
    KSR.textopsx.keep_hf_re("^(Contact|Record-Route|Expires|Require|RSeq|Retry-After|(WWW|Proxy)-Authenticate)$")


def replace_header(name: str, values: list[str]) -> None:
    """Replace all header fields of a name."""
    KSR.hdr.remove(name)
    KSR.hdr.append("".join(f"{name.title()}: {value}\r\n" for value in values))


def mask_vias(only: str, count: int) -> None:
    """Show another Via in the place of all of the request's, each of which has a line of its own."""
    KSR.textopsx.assign_hf_value("Via[1]", only)
    for index in range(count - 1, 0, -1):
        KSR.textops.remove_hf_idx("Via", index)


def restore_vias(values: list[str]) -> None:
    """Put the given Via values below our own in a reply, which may have both in one line (RFC 3261, 7.3.1)."""
    KSR.textopsx.assign_hf_value("Via[2]", ", ".join(values))


def answer(code: int, reason: str, headers: str = "") -> None:
    """Answer the request, through its transaction if it has one. `headers`: whole lines, each with its CRLF."""
    if headers:
        KSR.hdr.append_to_reply(headers)
    KSR.sl.send_reply(code, reason)


def answer_failure(code: int, reason: str, headers: str = "") -> None:
    """Answer the failed request with a reply of our own instead of the one received."""
    if headers:
        KSR.hdr.append_to_reply(headers)
    KSR.tm.t_reply(code, reason)


def drop_reply() -> None:
    """Do not pass the running reply on."""
    KSR.set_drop()


def is_cancelled() -> bool:
    """Whether the caller has cancelled the failed request."""
    return KSR.tm.t_is_canceled() > 0


def failure() -> tuple[int, bool]:
    """Of a failed request: the winning status code, and whether it is ours because nobody answered."""
    return int(KSR.tm.t_get_status_code()), KSR.tm.t_branch_timeout() > 0 and KSR.tm.t_branch_replied() < 0


def forwards_left() -> bool:
    """Take one from Max-Forwards (RFC 3261, 16.6); False when none is left."""
    return KSR.maxfwd.process_maxfwd(70) > 0


def is_sane() -> bool:
    """Check what RFC 3261, 16.3 asks for; answers by itself what is not."""
    return KSR.sanity.sanity_check_defaults() > 0


def answer_to_source() -> None:
    """Send replies to the port the request came from, as if its Via had asked for it (RFC 3581, 4)."""
    KSR.force_rport()


# --- state of a transaction, media, shared memory, log -----------------------------------------------------------


def remember(name: str, value: str) -> None:
    """Keep a text with the transaction; seen by its reply and failure callbacks in any worker."""
    KSR.pv.sets(f"$avp({name})", value)


def recall(name: str) -> str:
    """A text kept with the transaction, "" when there is none."""
    value: str | None = KSR.pv.get(f"$avp({name})")
    return value or ""


def media_offer(flags: str, description: str) -> str | None:
    """Have rtpengine take an offer; returns what it became, None when rtpengine could not."""
    KSR.pv.sets(_SDP, description)
    return KSR.pv.get(_SDP) if _done(KSR.rtpengine.rtpengine_offer(flags)) else None


def media_answer(flags: str, description: str) -> str | None:
    """Have rtpengine take an answer; returns what it became, None when rtpengine could not."""
    KSR.pv.sets(_SDP, description)
    return KSR.pv.get(_SDP) if _done(KSR.rtpengine.rtpengine_answer(flags)) else None


def media_delete(flags: str) -> bool:
    """Have rtpengine end the call; False when it did not answer."""
    return _done(KSR.rtpengine.rtpengine_delete(flags))


def _done(result: int) -> bool:
    """Whether rtpengine has done what it was told; if not, the next one is not to suffer for it."""
    if result <= 0:
        icmp.forget_errors()
    return result > 0


def look_up(table: str, key: str) -> str | None:
    """An entry of shared memory, by htable and key."""
    entry: str | None = KSR.htable.sht_get(table, key)
    return entry


def has_routes() -> bool:
    """Whether the live table has been loaded."""
    state = look_up("state", "routes")
    return state is not None and '"ready": true' in state


def let_rest(target: Endpoint, why: str) -> None:
    """Let a carrier's target be the last choice for half a minute, in all workers."""
    KSR.htable.sht_sets(RESTING, str(target), why)


def tally(what: str) -> int:
    """How often a thing has happened within these seconds, this time included."""
    return KSR.htable.sht_inc("rates", what)


def enter(name: str) -> int:
    """One more call of a tenant or trunk, or one more stream of its share; how many there are now."""
    return KSR.htable.sht_inc("calls", name)


def leave(name: str) -> int:
    """One call less; how many there are still."""
    return KSR.htable.sht_dec("calls", name)


def charge(call: str, names: str) -> None:
    """Keep whose call it is; forgotten after hours, should nobody ever end it (kamailio.cfg)."""
    KSR.htable.sht_sets("charges", call, names)


def charged(call: str) -> str:
    """Whose call it is, "" when nobody counts it."""
    return look_up("charges", call) or ""


def discharge(call: str) -> None:
    """Forget whose call it was."""
    KSR.htable.sht_rm("charges", call)


def forgotten() -> str:
    """Whose the call was that has just been forgotten."""
    names: str | None = KSR.pv.get("$shtrecord(value)")
    return names or ""


def mark_down(end: Endpoint, why: str) -> None:
    """Leave an instance or target out for new calls, in all workers, until it has answered again."""
    KSR.htable.sht_sets(HEALTH, str(end), why)


def store(table: str, key: str, value: str) -> None:
    """Write an entry of shared memory."""
    KSR.htable.sht_sets(table, key, value)


def store_for(table: str, key: str, value: str, seconds: int) -> None:
    """Write an entry of shared memory that is gone after so many seconds."""
    KSR.htable.sht_setxs(table, key, value, seconds)


def erase(table: str, key: str) -> None:
    """Remove an entry of shared memory, if it is there."""
    KSR.htable.sht_rm(table, key)


def tell(queue: str, key: str, value: str) -> None:
    """Let the sync process know of something."""
    KSR.mqueue.mq_add(queue, key, value)


@contextmanager
def locked(table: str) -> Iterator[None]:
    """Let one worker alone do what all of them do under this lock; the others wait, so it must be short."""
    KSR.htable.sht_lock(table, _LOCK)
    try:
        yield
    finally:
        KSR.htable.sht_unlock(table, _LOCK)


def count(why: str) -> None:
    """Add one to a counter."""
    KSR.htable.sht_inc(_COUNTERS, why)


def log(text: str) -> None:
    """Write one line for the operator."""
    KSR.notice(f"time={_now()} {text}\n")


def log_error(text: str) -> None:
    """Write an error for the operator."""
    KSR.err(f"time={_now()} {text}\n")


class Table:
    """Shared memory as the sync process reads and writes it."""

    def get(self, table: str, key: str) -> str | None:
        """Read an entry; a number as its digits."""
        entry: object = KSR.htable.sht_get(table, key)
        return None if entry is None else str(entry)

    def set(self, table: str, key: str, value: str) -> None:
        """Write an entry."""
        KSR.htable.sht_sets(table, key, value)

    def set_for(self, table: str, key: str, value: str, seconds: int) -> None:
        """Write an entry that is gone after so many seconds."""
        store_for(table, key, value, seconds)

    def remove(self, table: str, key: str) -> None:
        """Remove an entry, if it is there."""
        KSR.htable.sht_rm(table, key)

    def news(self, queue: str) -> Iterator[tuple[str, str]]:
        """Take what workers have told (`tell`), in order: keys and values."""
        while KSR.mqueue.mq_fetch(queue) > 0:
            yield KSR.mqueue.mqk_getw(queue), KSR.mqueue.mqv_getw(queue)

    def all(self, table: str) -> dict[str, str]:
        """Read a whole table of texts, one slot after the other: each is locked while it is read."""
        found: dict[str, str] = {}
        if KSR.htable.sht_iterator_start(_READER, table) < 0:
            return found
        while KSR.htable.sht_iterator_next(_READER) >= 0:
            found[KSR.pv.getw(f"$shtitkey({_READER})")] = KSR.pv.getw(f"$shtitval({_READER})")
        KSR.htable.sht_iterator_end(_READER)
        return found


def _now() -> str:
    """Now in UTC, as ISO 8601 writes it. Kamailio puts no time before its lines on standard error."""
    seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03}Z"


def _headers(name: str) -> list[str]:
    texts: list[str] = []
    while (text := KSR.hdr.get_idx(name, len(texts))) is not None:
        texts.append(text)
    return texts


def _values(name: str) -> list[str]:
    return [value for text in _headers(name) for value in split_list(text)]


def _bare(host: str) -> str:
    return host[1:-1] if host.startswith("[") else host


def _port(uri: str) -> int:
    hostport = uri.rpartition("@")[2].partition(";")[0].partition(">")[0]
    digits = hostport.rpartition(":")[2]
    return int(digits) if digits.isascii() and digits.isdigit() else 5060
