"""One node: starts Redis, rtpengine and Kamailio, keeps them running, and says how they are."""

import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import AF_INET, AF_INET6, AF_UNIX, SO_REUSEADDR, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET, SocketKind, socket
from typing import Any, TextIO

from sipward import certificate_report, live, reload, render, rpc, tls
from sipward.addresses import Addresses, resolve
from sipward.hosts import Address, hostport, parse_address
from sipward.records import Kind, Record
from sipward.settings import Control, Settings, SettingsError
from sipward.store import key, taken_by
from sipward.supervisor import Component, StartError, Supervisor

SHARED_MEMORY = 1024
"""MB that Kamailio may use for routes, transactions and connections; taken from the machine only as it is used."""
PRIVATE_MEMORY = 16
"""MB of each Kamailio process."""
_SHOWN = 5


def run(load: Callable[[], Settings]) -> int:
    """Run the node in the foreground until SIGTERM or SIGINT. Returns the exit code.

    `load` reads the configuration: at the start, and after each SIGHUP.
    """
    # What the components write, logs and data too, is for this user only.
    os.umask(0o077)
    _allow_files()
    # Until it is waited for: by default it would end this process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    settings = load()
    addresses = resolve(settings)
    try:
        check_addresses(settings, addresses)
        with _alone(settings) as lock:
            lock.write(str(os.getpid()))
            lock.flush()
            _check_ports(_ports(settings, addresses))
            _certify(settings, addresses)
            render.write(settings, addresses)
            tls.write(settings)
            tls.note_given(settings)
            _remove_stale(settings)
            running = _Running(load, settings, addresses)
            Supervisor(_components(settings), _say, running.reload).run()
    except StartError as error:
        _say(str(error))
        return 1
    return 0


class _Running:
    """What a node runs by, and how it takes another configuration: whole, or not at all."""

    def __init__(self, load: Callable[[], Settings], settings: Settings, addresses: Addresses) -> None:
        self._load = load
        self._settings = settings
        self._addresses = addresses

    def reload(self, supervisor: Supervisor) -> None:
        """Take the configuration as it is now, say what came of it, and answer who asked."""
        try:
            outcome = reload.Outcome("", self._take(supervisor))
            _say(f"took its configuration; started again: {', '.join(outcome.restarted) or 'nothing'}")
        except (SettingsError, StartError, OSError) as error:
            outcome = reload.Outcome(str(error), ())
            _say(f"goes on with the configuration it had: {error}")
        with suppress(OSError):
            reload.answer(self._settings, outcome)

    def _take(self, supervisor: Supervisor) -> tuple[str, ...]:
        settings = self._load()
        addresses = resolve(settings)
        if settings.state_dir != self._settings.state_dir:
            raise SettingsError(f"state_dir: this node runs in {self._settings.state_dir}: stop it before that changes")
        check_addresses(settings, addresses)
        _check_ports(_ports(settings, addresses), held=_ports(self._settings, self._addresses))
        try:
            _certify(settings, addresses)
            render.write(settings, addresses)
            tls.write(settings)
            restarted = supervisor.adopt(_components(settings))
        except (StartError, OSError):
            render.write(self._settings, self._addresses)
            tls.write(self._settings)
            # What does not start now is started again later, as at any other time.
            with suppress(StartError):
                supervisor.adopt(_components(self._settings))
            raise
        self._settings, self._addresses = settings, addresses
        return restarted


def _allow_files() -> None:
    """Let the components open as many files as the machine allows at all: each TCP connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _certify(settings: Settings, addresses: Addresses) -> None:
    """See to it that the node has a certificate: of its own CA, until a better one comes."""
    from sipward import certificate_sources  # noqa: PLC0415 - only a node that runs needs it, and it takes its time

    certificate_sources.prepare(settings, addresses)


@contextmanager
def redis_at_hand(settings: Settings) -> Iterator[None]:
    """Run the node's own Redis while the node itself does not. Raises StartError."""
    if settings.redis.url or reload.running(settings):
        yield
        return
    with _alone(settings):
        render.write_redis(settings)
        _remove_stale(settings)
        with Supervisor([_redis(settings)], _say).held():
            yield


def has_address(text: str) -> bool:
    """Whether an address is this machine's."""
    try:
        _try_to_bind(parse_address(text), 0, SOCK_DGRAM, "")
    except SettingsError:
        return False
    return True


def status(settings: Settings) -> dict[str, Any]:
    """How the node is: `ready` says whether calls can be routed right now."""
    routes, kamailio = _routes(settings), _kamailio_state(settings)
    components = {
        "redis": _redis_state(routes, kamailio["state"] == "ok"),
        "rtpengine": _rtpengine_state(settings),
        "kamailio": kamailio,
        "routes": {"state": "ok" if routes.get("ready") else "down", "detail": "", **routes},
        "instances": _instances_state(settings),
        "phones": _phones_state(settings),
        "carriers": _carriers_state(settings, kamailio["state"] == "ok"),
        "certificates": certificate_report.state(certificate_report.read(render.run_dir(settings))),
    }
    needed = ("rtpengine", "kamailio", "routes")
    ready = all(components[name]["state"] == "ok" for name in needed)
    return {"ready": ready, "components": components, "counters": _counters(settings)}


def unresolved(settings: Settings) -> dict[str, str]:
    """Host names of trunks that the running node has no answer for, with the reason."""
    return dict(_routes(settings).get("unresolved", {}))


def rejected(settings: Settings, kind: Kind, good: Mapping[str, Record]) -> dict[str, str] | None:
    """Values of a kind that the running node does not use, by name, with its reasons; None when no node runs.

    `good`: the values that are good in themselves. The node names only so many; of the others the live table says who
    has what they claim.
    """
    routes = _routes(settings)
    if not routes:
        return None
    prefix = key(kind, "")
    said = routes["rejected"].items()
    named = {text.removeprefix(prefix): str(reason) for text, reason in said if text.startswith(prefix)}
    if routes["rejected_total"] > len(said):
        named = {name: why for name, record in good.items() if (why := _taken(settings, record))} | named
    return named


def _taken(settings: Settings, record: Record) -> str:
    """Which of a record's claims is another's in the live table, in the words of `store`; empty when none is."""
    for claim, entry in record.entries.items():
        if claim not in record.claims:
            continue
        found = _ask(lambda: rpc.kamailio(render.run_dir(settings), "htable.get", live.TABLE, claim))  # noqa: B023
        there = found["item"]["value"] if found else entry
        if record.kind is Kind.TENANT and (owner := live.decode(there).name) != record.name:
            return taken_by(record.kind, claim, owner)
        if record.kind is Kind.NUMBER and there != entry:
            return taken_by(record.kind, claim, "in another spelling")
    return ""


@contextmanager
def _alone(settings: Settings) -> Iterator[TextIO]:
    """Keep a second node out of this `state_dir`: it would take the first one's sockets for stale ones."""
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with reload.lock_file(settings).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StartError(f"a node already runs in {settings.state_dir} (state_dir)") from None
        lock.truncate(0)
        yield lock


def check_addresses(settings: Settings, addresses: Addresses) -> None:
    """See whether they are this machine's, before anything is written."""
    for address, name in _listening(settings, addresses):
        _try_to_bind(address, 0, SOCK_DGRAM, name)


_KINDS = (SOCK_DGRAM, SOCK_STREAM)
type _Ports = dict[tuple[Address, int, SocketKind], str]


def _ports(settings: Settings, addresses: Addresses) -> _Ports:
    """What the components listen on, each with the key that has named its address."""
    network, control = settings.network, settings.rtp.control
    found: _Ports = {}
    for address, name in _listening(settings, addresses):
        for port, kind in (
            (network.sip_port, SOCK_DGRAM),
            (network.sip_port, SOCK_STREAM),
            (network.sips_port, SOCK_STREAM),
        ):
            found[address, port, kind] = name
    for own in settings.trunks.own_ports:
        found |= {(address, own, SOCK_DGRAM): "trunks.own_ports" for address in addresses.outside}
    if store := settings.rtp.store:
        found[store.address, store.port, SOCK_STREAM] = "rtp.store"
    return found | dict.fromkeys([(control.address, control.port, kind) for kind in _KINDS], "rtp.control")


def _check_ports(ports: _Ports, held: Collection[tuple[Address, int, SocketKind]] = ()) -> None:
    """Try what the components will listen on: their own words for what is in the way are many, and in their logs.

    `held`: what they listen on now.
    """
    for (address, port, kind), name in ports.items():
        if (address, port, kind) not in held:
            _try_to_bind(address, port, kind, name)


def _listening(settings: Settings, addresses: Addresses) -> Iterator[tuple[Address, str]]:
    """Where SIP is listened for, each address with the key that has named it."""
    yield from ((address, "network.address") for address in addresses.outside)
    yield from ((address, "network.service_address") for address in addresses.service)


def _try_to_bind(address: Address, port: int, kind: SocketKind, name: str) -> None:
    with socket(AF_INET6 if address.version == 6 else AF_INET, kind) as trial:
        if kind is SOCK_STREAM:
            # Connections of an earlier run that are still closing are in nobody's way.
            trial.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        try:
            trial.bind((str(address), port))
        except OSError as error:
            transport = "tcp" if kind is SOCK_STREAM else "udp"
            match error.errno:
                case errno.EADDRNOTAVAIL:
                    raise SettingsError(f"{name}: {address} is not an address of this machine") from None
                case errno.EADDRINUSE:
                    raise StartError(f"{transport} {hostport(address, port)} is in use by another program") from None
                case _:
                    raise StartError(f"cannot listen on {transport} {hostport(address, port)}: {error}") from None


_READS = {
    "redis": ("run/redis.conf",),
    "rtp-store": ("run/rtp-store.conf",),
    "rtpengine": ("run/rtpengine.conf",),
    "kamailio": ("run/kamailio.cfg", "run/edge.json", "run/addresses.json", "keys"),
    # It follows what it reads by itself.
    "certificates": (),
}
"""What each component reads at its start, below `state_dir`; Kamailio all of the settings too, but ..."""
_OF_CERTIFICATES = {"lets_encrypt", "certificates", "acme"}
"""... those that are nothing to it."""


def _components(settings: Settings) -> list[Component]:
    """The components by what is rendered for them now."""
    run_dir, logs = render.run_dir(settings), settings.state_dir / "log"
    components = [
        Component(
            "rtpengine",
            [_program("rtpengine"), "--config-file", str(run_dir / "rtpengine.conf")],
            logs / "rtpengine.log",
            lambda: rpc.rtpengine_is_alive(settings.rtp.control),
        ),
        Component(
            "kamailio",
            [
                _program("kamailio"),
                "-DD",
                "-E",
                *("-f", str(run_dir / "kamailio.cfg")),
                *("-Y", str(run_dir)),
                *("-m", str(SHARED_MEMORY), "-M", str(PRIVATE_MEMORY)),
                # The default manager costs a third more CPU for each message.
                *("-x", "fm", "-X", "fm"),
            ],
            logs / "kamailio.log",
            lambda: bool(_routes(settings).get("ready")),
            {"SIPWARD_RUN": str(run_dir), "PYTHONPATH": sysconfig.get_path("purelib")},
            # Without a last good table it is ready when Redis has been asked.
            lambda: str(_routes(settings).get("redis", "")),
            lambda: bool(_routes(settings).get("loading")),
        ),
        Component(
            "certificates",
            [sys.executable, "-P", "-m", "sipward.certificate_keeper", str(run_dir)],
            logs / "certificates.log",
            # Nobody waits for it: what is in use until it is there was seen to before.
            lambda: True,
        ),
    ]
    if settings.rtp.store:
        components.insert(0, _rtp_store(settings, settings.rtp.store))
    if not settings.redis.url:
        components.insert(0, _redis(settings))
    for component in components:
        component.reads = "\n".join((settings.state_dir / name).read_text() for name in _READS[component.name])
        if component.name == "kamailio":
            component.reads += settings.model_dump_json(exclude=_OF_CERTIFICATES)
    return components


def _redis(settings: Settings) -> Component:
    return Component(
        "redis",
        [_program("redis-server"), str(render.run_dir(settings) / "redis.conf")],
        settings.state_dir / "log" / "redis.log",
        lambda: _is_listened_at(settings.redis_socket),
    )


def _rtp_store(settings: Settings, place: Control) -> Component:
    run_dir = render.run_dir(settings)
    # A name of its own among the processes: who looks for Redis there means the other one.
    program = run_dir / "rtp-store"
    program.unlink(missing_ok=True)
    program.symlink_to(_program("redis-server"))
    return Component(
        "rtp-store",
        [str(program), str(run_dir / "rtp-store.conf")],
        settings.state_dir / "log" / "rtp-store.log",
        lambda: rpc.listens(place),
    )


def _is_listened_at(path: Path) -> bool:
    """Whether somebody takes connections there: a socket has its name a moment before."""
    with socket(AF_UNIX, SOCK_STREAM) as trial:
        return trial.connect_ex(str(path)) == 0


def _program(name: str) -> str:
    # Daemons live in sbin, which is not on every PATH.
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if path is None:
        raise StartError(f"{name} is not installed")
    return path


def _remove_stale(settings: Settings) -> None:
    """What outlives the process that made it would be taken for a running one's."""
    certificate_report.file(render.run_dir(settings)).unlink(missing_ok=True)
    settings.redis_socket.unlink(missing_ok=True)
    (render.run_dir(settings) / "kamailio.rpc").unlink(missing_ok=True)


def _routes(settings: Settings) -> dict[str, Any]:
    """What the sync process says of itself; empty when it has not said anything."""
    return _ask(lambda: dict(json.loads(_state_entry(settings, "routes")))) or {}


def _state_entry(settings: Settings, key: str) -> str:
    entry = rpc.kamailio(render.run_dir(settings), "htable.get", "state", key)
    return str(entry["item"]["value"])


def _redis_state(routes: dict[str, Any], runs: bool) -> dict[str, str]:
    said = str(routes.get("redis", "down: not asked yet" if runs else "down: the node does not run"))
    state, _, detail = said.partition(":")
    return {"state": state, "detail": detail.strip()}


def _instances_state(settings: Settings) -> dict[str, Any]:
    """How many instances are watched and how many of them are down, with the names and reasons of the first few."""
    said: dict[str, Any] = _ask(lambda: dict(json.loads(_state_entry(settings, live.HEALTH_KEY)))) or {}
    if not said:
        return {"state": "down", "detail": "not asked yet"}
    watched, down, names = said["watched"], said["down"], said["names"]
    if not down:
        return {"state": "ok", "detail": f"{watched} watched, none down", **said}
    first = ", ".join(f"{name} ({why})" for name, why in names.items())
    more = ", ..." if down > len(names) else ""
    return {"state": "degraded", "detail": f"{down} of {watched} down: {first}{more}", **said}


def _phones_state(settings: Settings) -> dict[str, Any]:
    """How many phones are registered, and how many flows are pinged for them."""
    said: dict[str, Any] = _ask(lambda: dict(json.loads(_state_entry(settings, live.PHONES_KEY)))) or {}
    if not said:
        return {"state": "down", "detail": "not asked yet"}
    if said["complaint"]:
        return {"state": "degraded", "detail": said["complaint"], **said}
    return {"state": "ok", "detail": f"{said['registered']} registered, {said['pinged']} pinged", **said}


def _carriers_state(settings: Settings, runs: bool) -> dict[str, Any]:
    """Whether all carriers over TLS have shown who they are; with the reasons why the first few are doubted."""
    if not runs:
        return {"state": "down", "detail": "not asked yet"}
    slots = _ask(lambda: rpc.kamailio(render.run_dir(settings), "htable.dump", live.PEERS))
    if slots is None:
        return {"state": "down", "detail": "does not answer"}
    known = {str(item["name"]): str(item["value"]) for slot in slots for item in slot["slot"]}
    doubts = {name[1:]: why for name, why in sorted(known.items()) if name.startswith("!")}
    if not doubts:
        return {"state": "ok", "detail": ""}
    first = dict(list(doubts.items())[:_SHOWN])
    return {"state": "degraded", "detail": ", ".join(f"{end} ({why})" for end, why in first.items())}


def _counters(settings: Settings) -> dict[str, int]:
    """How often each thing worth counting has happened since Kamailio started: refusals by their reason, failovers."""
    slots = _ask(lambda: rpc.kamailio(render.run_dir(settings), "htable.dump", "counters")) or []
    return dict(sorted((item["name"], int(item["value"])) for slot in slots for item in slot["slot"]))


def _rtpengine_state(settings: Settings) -> dict[str, str]:
    known = _ask(lambda: rpc.kamailio(render.run_dir(settings), "rtpengine.show", "all")) or []
    unused = [str(entry["url"]).partition(":")[2] for entry in known if not entry["active"]]
    if len(known) > 1 and len(unused) < len(known):
        # New calls use the others.
        return {"state": "ok", "detail": f"of {len(known)} not used: {', '.join(unused)}" if unused else ""}
    if not rpc.rtpengine_is_alive(settings.rtp.control):
        return {"state": "down", "detail": f"does not answer at {settings.rtp.control}"}
    if unused:
        return {"state": "down", "detail": "answers, but Kamailio has not asked it again yet"}
    return {"state": "ok", "detail": ""}


def _kamailio_state(settings: Settings) -> dict[str, str]:
    uptime = _ask(lambda: rpc.kamailio(render.run_dir(settings), "core.uptime"))
    if uptime is None:
        return {"state": "down", "detail": "does not answer"}
    return {"state": "ok", "detail": f"up {uptime['uptime']} s"}


def _ask[T](question: Callable[[], T]) -> T | None:
    try:
        return question()
    except (rpc.UnreachableError, ValueError, KeyError):
        return None


def _say(line: str) -> None:
    print(f"sipward: {line}", file=sys.stderr, flush=True)
