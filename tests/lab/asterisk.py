"""Real PBXs: Asterisk as an instance, with PJSIP endpoints set as NethVoice sets them, and Asterisk as a carrier."""

import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, Self

from lab.addresses import GATEWAY, SERVICE
from lab.eventually import PATIENCE
from lab.network import Machine

PASSWORD = "secret"
MAX_CONTACTS = 3
"""Registrations that an extension can have at a time."""
ECHO = "600"
"""The extension that says back what it hears."""

_MODULES = (
    "res_pjproject res_sorcery_config res_sorcery_memory res_sorcery_astdb res_timing_timerfd res_rtp_asterisk "
    "res_pjsip res_pjsip_session res_pjsip_sdp_rtp res_pjsip_pubsub res_pjsip_registrar res_pjsip_refer res_pjsip_nat "
    "res_pjsip_endpoint_identifier_user res_pjsip_endpoint_identifier_ip res_pjsip_authenticator_digest "
    "res_pjsip_outbound_authenticator_digest res_pjsip_caller_id res_pjsip_rfc3326 res_pjsip_dlg_options "
    "res_pjsip_outbound_registration res_clioriginate app_milliwatt "
    "chan_pjsip pbx_config app_dial app_echo bridge_simple bridge_native_rtp bridge_softmix bridge_builtin_features "
    "codec_alaw codec_ulaw"
)
"""Only what is used: all of Asterisk's modules take seconds to load."""

_TELEPHONY_ERROR = re.compile(r"ERROR\[\S+ (chan_pjsip|res_|rtp_|bridge|channel)")
"""An error in the log whose source file is about SIP, SDP or RTP."""

_ASTERISK = """\
[directories]
astetcdir => {etc}
astmoddir => /usr/lib/x86_64-linux-gnu/asterisk/modules
astvarlibdir => {state}
astdbdir => {state}
astkeydir => {state}
astdatadir => /usr/share/asterisk
astagidir => {state}
astspooldir => {state}
astrundir => {state}
astlogdir => {state}
[options]
verbose = 3
nocolor = yes
"""

_ENDPOINT = """
[{user}]
type = endpoint
transport = service
context = from-internal
disallow = all
allow = alaw,ulaw
auth = {user}
aors = {user}
outbound_proxy = sip:{proxy}\\;lr
from_domain = {domain}
rewrite_contact = no
rtp_symmetric = no
force_rport = no
direct_media = no
{media}
[{user}]
type = auth
auth_type = userpass
username = {user}
password = {password}

[{user}]
type = aor
max_contacts = {contacts}
remove_existing = yes
support_path = {path}
"""

_ENCRYPTIONS = {
    "off": "",
    "sdes": "media_encryption = sdes\n",
    "dtls": "media_encryption = dtls\ndtls_auto_generate_cert = yes\n",
}

_TRUNK = """
[carrier]
type = endpoint
transport = service
context = from-carrier
disallow = all
allow = alaw
aors = carrier
outbound_auth = carrier
outbound_proxy = sip:{proxy}\\;lr
from_user = {account}
from_domain = {carrier}
rewrite_contact = no
rtp_symmetric = no
force_rport = no
direct_media = no

[carrier]
type = auth
auth_type = userpass
username = {account}
password = {password}

[carrier]
type = aor
contact = sip:{carrier}
"""
"""A carrier that asks for a password, by the node as outbound proxy."""

_REGISTRATION = """
[carrier]
type = registration
transport = service
outbound_auth = carrier
outbound_proxy = sip:{proxy}\\;lr
server_uri = sip:{carrier}
client_uri = sip:{account}@{carrier}
contact_user = {account}
expiration = 60
max_random_initial_delay = 0
line = yes
endpoint = carrier
"""
"""`line`: its calls are known by a parameter of the registered Contact."""

_IDENTIFY = """
[carrier]
type = identify
endpoint = carrier
match_header = X-Forwarded-For: {carrier}
"""
"""Without a registration its calls are known by what the node says of their source."""

_DIALPLAN = f"""\
[from-internal]
exten => {ECHO},1,Answer()
 same => n,Echo()
exten => _2XX,1,Dial(${{PJSIP_DIAL_CONTACTS(${{EXTEN}})}},30)
 same => n,Hangup()

[from-carrier]
exten => _[a-z0-9]!,1,Answer()
 same => n,Echo()
"""

_CUSTOMER = """
[{user}]
type = endpoint
transport = service
context = from-customers
disallow = all
allow = alaw
auth = {user}
aors = {user}
rewrite_contact = no
rtp_symmetric = no
force_rport = no
direct_media = no

[{user}]
type = auth
auth_type = userpass
username = {user}
password = {password}

[{user}]
type = aor
max_contacts = 1
remove_existing = yes
"""

_LINE = """
[line]
type = endpoint
transport = service
context = from-customers
disallow = all
allow = alaw
aors = line
direct_media = no

[line]
type = aor
contact = sip:{node}
"""
"""A customer who needs no account: calls are brought to the node's address."""


class Daemon:
    """One Asterisk process on a machine, its files and its console. A context manager."""

    def __init__(self, machine: Machine, pjsip: str, dialplan: str, modules: Iterable[str] = ()) -> None:
        self.machine = machine
        self._etc = machine.lab.directory / "asterisk" / machine.name / "etc"
        self._state = self._etc.parent / "state"
        self._config = self._etc / "asterisk.conf"
        transport = f"[service]\ntype = transport\nprotocol = udp\nbind = {machine.address}:{machine.sip_port}\n"
        common = "[global]\ntype = global\nuser_agent = Asterisk\nendpoint_identifier_order = header,ip,username\n\n"
        self._files = {
            # Not used, but each is an error in the log when it is not there.
            **dict.fromkeys(("acl.conf", "pjproject.conf"), "; nothing\n"),
            **dict.fromkeys(("features.conf", "stasis.conf", "udptl.conf", "manager.conf"), "[general]\n"),
            **dict.fromkeys(("cdr.conf", "cel.conf"), "[general]\nenable = no\n"),
            "asterisk.conf": _ASTERISK.format(etc=self._etc, state=self._state),
            "modules.conf": "[modules]\nautoload = no\n"
            + "".join(f"load = {name}.so\n" for name in (*_MODULES.split(), *modules)),
            "logger.conf": "[general]\n[logfiles]\nfull => notice,warning,error,verbose\n",
            "pjsip.conf": common + transport + pjsip,
            "rtp.conf": f"[general]\nrtpstart = {machine.rtp_ports[0]}\nrtpend = {machine.rtp_ports[1]}\n",
            "extensions.conf": dialplan,
        }

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self, within: float = 40.0) -> Self:
        """Start it and come back when it says that it has fully booted."""
        self._etc.mkdir(parents=True, exist_ok=True)
        self._state.mkdir(exist_ok=True)
        for name, text in self._files.items():
            (self._etc / name).write_text(text)
        self._process = self.machine.popen(["asterisk", "-f", "-C", str(self._config)], log=self._state / "console")
        deadline = time.monotonic() + within
        while "fully booted" not in self.cli("core waitfullybooted", check=False):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Asterisk on {self.machine.name} does not start\n{self.log_tail()}")
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """Stop it; no call is waited for."""
        self.machine.lab.processes.stop(self._process)

    def cli(self, command: str, *, check: bool = True) -> str:
        """Run a command of Asterisk's console and return what it prints."""
        argv = ["asterisk", "-C", str(self._config), "-rx", command]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
        if check and done.returncode:
            raise RuntimeError(f"asterisk -rx {command!r}: {done.stdout}{done.stderr}")
        return done.stdout

    @property
    def channels(self) -> int:
        """How many channels it has now: one for each leg of a call."""
        return int(self.cli("core show channels count").partition(" active channel")[0].split()[-1])

    def hang_up(self) -> None:
        """End all its calls."""
        self.cli("channel request hangup all")

    @property
    def errors(self) -> list[str]:
        """Lines of its log in which its SIP or its media says ERROR. There must be none.

        What it says of its own inside is not the node's doing: stasis.c, say, meets topics that are gone already.
        """
        return [line for line in self._log.splitlines() if _TELEPHONY_ERROR.search(line)]

    def log_tail(self, lines: int = 40) -> str:
        """The end of its log."""
        return f"--- asterisk on {self.machine.name}\n" + "\n".join(self._log.splitlines()[-lines:])

    @property
    def _log(self) -> str:
        paths = (self._state / "full", self._state / "console")
        return "".join(path.read_text(errors="replace") for path in paths if path.exists())


class Asterisk(Daemon):
    """A PBX, on the node's machine or its own. `extensions` are its phones' users.

    `carrier` is the address of one that it calls by, and is called by: from an account there, if it has one.
    """

    def __init__(
        self,
        machine: Machine,
        domain: str,
        extensions: Iterable[str] = (),
        *,
        support_path: bool = False,
        carrier: str = "",
        account: str = "",
        srtp: Literal["off", "sdes", "dtls"] = "off",
    ) -> None:
        """`srtp`: what its calls with phones are, and nothing else is taken."""
        self.domain = domain
        proxy = f"{SERVICE.host(GATEWAY)[0]}:5060"
        path = "yes" if support_path else "no"
        common = {"proxy": proxy, "domain": domain, "password": PASSWORD, "contacts": MAX_CONTACTS, "path": path}
        parts = [_ENDPOINT.format(user=user, media=_ENCRYPTIONS[srtp], **common) for user in extensions]
        if carrier:
            trunk = _TRUNK + (_REGISTRATION if account else _IDENTIFY)
            parts.append(trunk.format(carrier=carrier, account=account or "nobody", **common))
        modules = [*(["res_pjsip_path"] if support_path else []), *(["res_srtp"] if srtp != "off" else [])]
        super().__init__(machine, "".join(parts), _DIALPLAN, modules)

    @property
    def contacts(self) -> str:
        """Who is registered, as the console shows it."""
        return self.cli("pjsip show contacts")

    @property
    def is_registered(self) -> bool:
        """Whether it has registered at its carrier."""
        return " Registered" in self.cli("pjsip show registrations")

    def call_out(self, number: str) -> None:
        """Call a number by its carrier, and play a tone to whoever answers."""
        self.cli(f"channel originate PJSIP/{number}@carrier application Milliwatt")


class Carrier(Daemon):
    """A carrier. `numbers` are its customers' accounts by their numbers; any other that begins with 0 is an echo."""

    def __init__(self, machine: Machine, node: str, numbers: Mapping[str, str]) -> None:
        users = sorted(set(numbers.values()))
        customers = "".join(_CUSTOMER.format(user=user, password=PASSWORD) for user in users)
        lines = ["[from-customers]", "exten => _0X.,1,Answer()", " same => n,Echo()"]
        for number, user in numbers.items():
            lines += [f"exten => {number},1,Dial(${{PJSIP_DIAL_CONTACTS({user})}},30)", " same => n,Hangup()"]
        super().__init__(machine, customers + _LINE.format(node=node), "\n".join(lines) + "\n")

    def call_account(self, user: str) -> None:
        """Call a customer where it has registered, and play a tone to it."""
        self.cli(f"channel originate PJSIP/{user} application Milliwatt")

    def call_number(self, number: str) -> None:
        """Call a number at the node's address, and play a tone to whoever answers."""
        self.cli(f"channel originate PJSIP/{number}@line application Milliwatt")


def installed() -> bool:
    """Whether there is an Asterisk here."""
    return Path("/usr/sbin/asterisk").exists()
