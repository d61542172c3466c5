"""A real phone: baresip without a sound card, told what to do over its control port."""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from lab.asterisk import PASSWORD
from lab.audio import is_tone, write_wav
from lab.eventually import PATIENCE
from lab.network import Machine
from lab.packets import Address
from lab.sip import Message
from lab.sipp import Transport

_CONTROL = 4444
_MODULES = "/usr/lib/baresip/modules"

_CONFIG = """\
poll_method epoll
sip_listen {address}:{port}
net_interface eth0
call_local_timeout 120
call_max_calls 4
audio_player aubridge,nowhere
audio_source aufile,{said}
audio_alert aubridge,nowhere
audio_level no
ausrc_format s16
auplay_format s16
rtp_tos 184
rtp_ports {low}-{high}
rtcp_mux no
jitter_buffer_type fixed
jitter_buffer_delay 5-10
snd_path {heard}
module_path {modules}
module g711.so
module aufile.so
module aubridge.so
module sndfile.so
module uuid.so
{modules_of_media}module_app account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:{control}
"""

type Srtp = Literal["off", "optional", "sdes", "dtls"]
type Codec = Literal["PCMA/8000/1", "opus/48000/2"]

_ENCRYPTIONS: Mapping[Srtp, str] = {
    "off": "", "optional": ";mediaenc=srtp", "sdes": ";mediaenc=srtp-mand", "dtls": ";mediaenc=dtls_srtp",
}  # fmt: skip


_TRACED = re.compile(r"#\nTLS (\S+):(\d+) -> (\S+):(\d+)\n(.*?)\x1b\[;m", re.S)
"""A message in the phone's trace."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something the phone tells: `kind` is REGISTER_OK, CALL_INCOMING, CALL_ESTABLISHED, CALL_CLOSED and so on."""

    kind: str
    peer: str
    call: str
    detail: str


class Baresip:
    """A phone on a machine, registered as user@domain through the node. A context manager."""

    def __init__(
        self,
        machine: Machine,
        user: str,
        domain: str,
        *,
        transport: Transport = "udp",
        password: str = PASSWORD,
        answers: bool = False,
        hertz: int = 425,
        srtp: Srtp = "off",
        ice: bool = False,
        codec: Codec = "PCMA/8000/1",
        ca: Path | None = None,
    ) -> None:
        """`srtp`: "optional" offers keys beside plain RTP (RFC 8643); the others take nothing else.

        `ca`: the file of whom it trusts over TLS; anybody without it.
        """
        self.machine = machine
        self.user = user
        self.domain = domain
        self._directory = machine.lab.directory / "baresip" / f"{machine.lab.next_number()}-{machine.name}"
        self._hertz = hertz
        self._events: list[Event] = []
        self._answers: dict[str, Mapping[str, Any]] = {}
        self._changed = threading.Condition()
        self._next = 0
        self._is_opus = codec.startswith("opus")
        self._said = machine.lab.directory / "audio" / f"{hertz}{'-opus' if self._is_opus else ''}.wav"
        self._heard = self._directory / "heard"
        edge = Address(machine.lab.edge(machine), 5061 if transport == "tls" else 5060)
        self._is_encrypted = transport == "tls"
        self._read = 0
        self._account = (
            f"<sip:{user}@{domain};transport={transport}>;auth_user={user};auth_pass={password}"
            f';outbound="sip:{edge};transport={transport}";regint=600;audio_codecs={codec}'
            f";answermode={'auto' if answers else 'manual'}{_ENCRYPTIONS[srtp]}{';medianat=ice' if ice else ''}"
        )
        self._config = _CONFIG.format(
            address=machine.address, port=machine.sip_port, low=machine.rtp_ports[0], high=machine.rtp_ports[1],
            modules=_MODULES, control=_CONTROL, said=self._said, heard=self._heard,
            modules_of_media="".join(f"module {name}.so\n" for name in _media_modules(srtp, ice, codec)),
        )  # fmt: skip
        if ca:
            self._config += f"sip_cafile {ca}\n"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start it and wait until it is registered."""
        self._heard.mkdir(parents=True)
        self._write_what_it_says()
        (self._directory / "config").write_text(self._config)
        (self._directory / "accounts").write_text("# none\n")
        (self._directory / "contacts").write_text("")
        argv = ["baresip", *(["-s"] if self._is_encrypted else []), "-f", str(self._directory)]
        self._process = self.machine.popen(argv, log=self._directory / "log", cwd=self._directory)
        self._connect()
        # An account of the file would be registered before anyone listens to the events.
        self.command("uanew", self._account)
        self.wait_for("REGISTER_OK")
        return self

    def _write_what_it_says(self) -> None:
        """A file as its codec takes it: baresip does not resample."""
        if self._is_opus:
            write_wav(self._said, self._hertz, seconds=60, rate=48000, channels=2)
        else:
            write_wav(self._said, self._hertz)

    def stop(self) -> None:
        """End it; it unregisters by itself."""
        self.machine.lab.processes.stop(self._process)
        self._socket.close()

    def _connect(self, within: float = PATIENCE) -> None:
        deadline = time.monotonic() + within
        while True:
            self._socket = self.machine.socket(kind=socket.SOCK_STREAM)
            try:
                self._socket.connect(("127.0.0.1", _CONTROL))
                break
            except ConnectionRefusedError:
                self._socket.close()
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"baresip does not start\n{self.log_tail()}") from None
                time.sleep(0.01)
        threading.Thread(target=self._listen, name=f"baresip {self.machine.name}", daemon=True).start()

    # --- what it is told ------------------------------------------------------------------------------------------

    def dial(self, number: str, timeout: float = PATIENCE) -> None:
        """Call a number of the own domain and wait until it is answered."""
        mark = self.mark()
        self.command("dial", f"sip:{number}@{self.domain}")
        self.wait_for("CALL_ESTABLISHED", timeout=timeout, since=mark)

    def accept(self) -> None:
        """Answer the call that rings."""
        mark = self.mark()
        self.command("accept")
        self.wait_for("CALL_ESTABLISHED", since=mark)

    def hangup(self) -> None:
        """End the call."""
        mark = self.mark()
        self.command("hangup")
        self.wait_for("CALL_CLOSED", since=mark)

    def hold(self) -> None:
        """Put the call on hold and wait until the peer has agreed (a re-INVITE)."""
        self._renegotiate("hold")

    def resume(self) -> None:
        """Take the call back and wait until the peer has agreed."""
        self._renegotiate("resume")

    def _renegotiate(self, name: str) -> None:
        mark = self.mark()
        # baresip 1.1 says "invalid argument" to a resume that it does: the answer's SDP is what tells.
        self.command(name, check=False)
        self.wait_for("CALL_REMOTE_SDP", since=mark)

    def transfer(self, number: str) -> None:
        """Send the peer to another number (REFER, RFC 3515). How that goes is the other two's to tell.

        The own call ends with the last NOTIFY. Asterisk sends the first two at the same instant; if they overtake each
        other on their way, the phone refuses the older one (RFC 3261, 12.2.2) and Asterisk sends no more.
        """
        self.command("transfer", f"sip:{number}@{self.domain}")

    def command(self, name: str, params: str = "", *, check: bool = True, timeout: float = PATIENCE) -> str:
        """Run a command of the phone; its answer's text. RuntimeError when it says no."""
        with self._changed:
            self._next += 1
            token = str(self._next)
        request = json.dumps({"command": name, "params": params, "token": token}).encode()
        self._socket.sendall(b"%d:%s," % (len(request), request))
        answer = self._await(lambda: self._answers.get(token), timeout, f"an answer to {name}")
        if check and not answer.get("ok", True):
            raise RuntimeError(f"baresip {name} {params}: {answer.get('data')}\n{self.log_tail()}")
        return str(answer.get("data", ""))

    def hears(self, hertz: int) -> bool:
        """Whether the tone is what it has heard of late, decrypted and decoded."""
        files = sorted(self._heard.glob("dump-*-dec.wav"), key=lambda file: file.stat().st_mtime_ns)
        return bool(files) and is_tone(files[-1], hertz)

    # --- what it tells --------------------------------------------------------------------------------------------

    @property
    def events(self) -> list[Event]:
        """All it has told, in order."""
        with self._changed:
            return list(self._events)

    def mark(self) -> int:
        """A place in its events, for `since`."""
        with self._changed:
            return len(self._events)

    def wait_for(self, kind: str, *, timeout: float = PATIENCE, since: int = 0) -> Event:
        """The first event of this kind after `since`, past ones included."""
        return self._await(
            lambda: next((e for e in self._events[since:] if e.kind == kind), None), timeout, f"the event {kind}"
        )

    def log_tail(self, lines: int = 40) -> str:
        """The end of what it printed."""
        text = (self._directory / "log").read_text(errors="replace")
        # It prints the bit rate several times a second.
        log = [line for line in text.splitlines() if line and "(bit/s)" not in line]
        return f"--- baresip on {self.machine.name}\n" + "\n".join(log[-lines:])

    def _await[T](self, look: Callable[[], T | None], timeout: float, what: str) -> T:
        deadline = time.monotonic() + timeout
        with self._changed:
            while (found := look()) is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(
                        f"{self.machine.name} did not get {what} within {timeout} s; events: "
                        f"{[e.kind for e in self._events]}\n{self.log_tail()}"
                    )
                self._changed.wait(left)
            return found

    def _listen(self) -> None:
        """Read netstrings (`length:text,`) until the phone goes."""
        buffer = b""
        while True:
            try:
                data = self._socket.recv(65536)
            except OSError:
                return
            if not data:
                return
            buffer += data
            while True:
                size, colon, rest = buffer.partition(b":")
                if not colon or len(rest) <= int(size):
                    break
                self._take(json.loads(rest[: int(size)]))
                buffer = rest[int(size) + 1 :]

    def _take(self, said: Mapping[str, Any]) -> None:
        self._tell()
        with self._changed:
            if said.get("response"):
                self._answers[str(said.get("token"))] = said
            else:
                fields = (str(said.get(key, "")) for key in ("type", "peeruri", "id", "param"))
                self._events.append(Event(*fields))
            self._changed.notify_all()

    def _tell(self) -> None:
        """Tell the wire what was encrypted on it since the last time; the phone writes it down before it acts on it."""
        if not self._is_encrypted:
            return
        new = (self._directory / "log").read_bytes()[self._read :].decode(errors="replace")
        lab, end = self.machine.lab, 0
        for traced in _TRACED.finditer(new):
            source, destination = (
                Address(host.strip("[]"), int(port)) for host, port in (traced.group(1, 2), traced.group(3, 4))
            )
            way = "out" if source.host in self.machine.addresses else "in"
            message = Message(time.time(), self.machine.name, "eth0", way, "tls", source, destination, traced[5])
            lab.wire.overhear(message, lab.side(self.machine.address))
            end = traced.end()
        self._read += len(new[:end].encode())


def _media_modules(srtp: Srtp, ice: bool, codec: Codec) -> list[str]:
    names = {"off": [], "optional": ["srtp"], "sdes": ["srtp"], "dtls": ["dtls_srtp"]}[srtp]
    return [*names, *(["ice"] if ice else []), *(["opus"] if codec.startswith("opus") else [])]
