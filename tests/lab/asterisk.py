"""A real PBX as an instance: Asterisk with PJSIP endpoints set as NethVoice sets them."""

import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

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
    "chan_pjsip pbx_config app_dial app_echo bridge_simple bridge_native_rtp bridge_softmix bridge_builtin_features "
    "codec_alaw codec_ulaw"
)
"""Only what is used: all of Asterisk's modules take seconds to load."""

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

_DIALPLAN = f"""\
[from-internal]
exten => {ECHO},1,Answer()
 same => n,Echo()
exten => _2XX,1,Dial(${{PJSIP_DIAL_CONTACTS(${{EXTEN}})}},30)
 same => n,Hangup()
"""


class Asterisk:
    """One Asterisk on a machine, the node's or its own. A context manager; `extensions` are its phones' users."""

    def __init__(self, machine: Machine, domain: str, extensions: Iterable[str], *, support_path: bool = False) -> None:
        self.machine = machine
        self.domain = domain
        self._etc = machine.lab.directory / "asterisk" / machine.name / "etc"
        self._state = self._etc.parent / "state"
        self._config = self._etc / "asterisk.conf"
        proxy = f"{SERVICE.host(GATEWAY)[0]}:5060"
        path = "yes" if support_path else "no"
        common = {"proxy": proxy, "domain": domain, "password": PASSWORD, "contacts": MAX_CONTACTS, "path": path}
        endpoints = [_ENDPOINT.format(user=user, **common) for user in extensions]
        transport = f"[service]\ntype = transport\nprotocol = udp\nbind = {machine.address}:{machine.sip_port}\n"
        modules = [*_MODULES.split(), *(["res_pjsip_path"] if support_path else [])]
        self._files = {
            # Not used, but each is an error in the log when it is not there.
            **dict.fromkeys(("acl.conf", "pjproject.conf"), "; nothing\n"),
            **dict.fromkeys(("features.conf", "stasis.conf", "udptl.conf", "manager.conf"), "[general]\n"),
            **dict.fromkeys(("cdr.conf", "cel.conf"), "[general]\nenable = no\n"),
            "asterisk.conf": _ASTERISK.format(etc=self._etc, state=self._state),
            "modules.conf": "[modules]\nautoload = no\n" + "".join(f"load = {name}.so\n" for name in modules),
            "logger.conf": "[general]\n[logfiles]\nfull => notice,warning,error,verbose\n",
            "pjsip.conf": "[global]\ntype = global\nuser_agent = Asterisk\n\n" + transport + "".join(endpoints),
            "rtp.conf": f"[general]\nrtpstart = {machine.rtp_ports[0]}\nrtpend = {machine.rtp_ports[1]}\n",
            "extensions.conf": _DIALPLAN,
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
    def contacts(self) -> str:
        """Who is registered, as the console shows it."""
        return self.cli("pjsip show contacts")

    @property
    def errors(self) -> list[str]:
        """Lines of its log that say ERROR. There must be none."""
        return [line for line in self._log.splitlines() if "ERROR[" in line]

    def log_tail(self, lines: int = 40) -> str:
        """The end of its log."""
        return f"--- asterisk on {self.machine.name}\n" + "\n".join(self._log.splitlines()[-lines:])

    @property
    def _log(self) -> str:
        paths = (self._state / "full", self._state / "console")
        return "".join(path.read_text(errors="replace") for path in paths if path.exists())


def installed() -> bool:
    """Whether there is an Asterisk here."""
    return Path("/usr/sbin/asterisk").exists()
