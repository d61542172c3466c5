"""Settings into what each component reads: its configuration file and the workers' own description of the node."""

import math
import secrets
from _blake2 import blake2b
from pathlib import Path
from string import Template

from pydantic import TypeAdapter

from sipward.addresses import Addresses, local_networks
from sipward.edge import Edge
from sipward.model import Endpoint, Shares, Side, Socket
from sipward.settings import Engine, Settings, restore

CHECKOUT = Path(__file__).resolve().parents[2]
"""Where the project's files are: the configurations are templates there."""

_KAMAILIO_LEVEL = {"error": 1, "warning": 1, "info": 1, "debug": 3}
"""Never below notice (1): refusals are said at that level, and an operator needs them whatever else is said."""
_RTPENGINE_LEVEL = {"error": 3, "warning": 4, "info": 5, "debug": 7}

_LATER = 3
"""Seconds that rtpengine keeps an unanswered offer longer than Kamailio its call: only one that is lost gets so old."""


class _AtTemplate(Template):
    delimiter = "@"


def run_dir(settings: Settings) -> Path:
    """Sockets, process ids and rendered configurations: what lives as long as a run."""
    return settings.state_dir / "run"


def edge(settings: Settings, addresses: Addresses) -> Edge:
    """The node as its workers will see it; without keys, which they read from a file of their own."""
    plain, secure = settings.network.sip_port, settings.network.sips_port
    sockets = [
        Socket(side, Endpoint(transport, str(address), port), str(public))
        for side, pairs in (
            (Side.OUTSIDE, zip(addresses.outside, addresses.public, strict=True)),
            (Side.SERVICE, zip(addresses.service, addresses.service, strict=True)),
        )
        for address, public in pairs
        for transport, port in (("udp", plain), ("tcp", plain), ("tls", secure))
    ]
    own = settings.trunks.own_ports
    sockets += [
        Socket(Side.OUTSIDE, Endpoint("udp", str(address), port), str(public))
        for address, public in zip(addresses.outside, addresses.public, strict=True)
        for port in own
    ]
    return Edge(
        sockets,
        map(str, settings.network.service_networks),
        map(str, local_networks(settings, addresses)),
        [settings.fqdn],
        [],
        round(settings.sip.instance_timeout * 1000),
        settings.numbers.plan,
        own,
        _shares(settings, addresses),
        settings.rtp.learning == "always",
    )


def _shares(settings: Settings, addresses: Addresses) -> Shares:
    """What a tenant and a source may have of the streams that there are ports for: two for each, on either side."""
    ports = settings.rtp.ports.high - settings.rtp.ports.low + 1
    streams = ports // (4 if set(addresses.outside) & set(addresses.service) else 2)
    # All of them is no bound, and costs no counting.
    most = [max(1, streams * percent // 100) for percent in (settings.rtp.tenant_share, settings.rtp.source_share)]
    return Shares(*(0 if share >= streams else share for share in most))


def read(run: Path) -> tuple[Settings, Addresses]:
    """What the running node was started with."""
    settings, addresses = _read_back(run)
    return restore(settings), TypeAdapter(Addresses).validate_json(addresses.read_bytes())


def version(run: Path) -> object:
    """What is another value when `read` may find something else."""
    return [(found.st_ino, found.st_mtime_ns) for found in map(Path.stat, _read_back(run))]


def _read_back(run: Path) -> tuple[Path, Path]:
    return run / "settings.json", run / "addresses.json"


def write(settings: Settings, addresses: Addresses) -> None:
    """Write everything the components read, under `state_dir`."""
    run = _made(settings)
    node = edge(settings, addresses)
    write_file(run / "edge.json", node.to_json())
    of_settings, of_addresses = _read_back(run)
    write_file(of_settings, settings.model_dump_json())
    write_file(of_addresses, TypeAdapter(Addresses).dump_json(addresses).decode())
    write_file(run / "kamailio.cfg", _kamailio(settings, node))
    if not settings.store_password_file.exists():
        write_file(settings.store_password_file, secrets.token_hex(32) + "\n")
    write_file(run / "rtpengine.conf", _rtpengine(settings, addresses))
    write_file(run / "redis.conf", _redis(settings))
    write_file(run / "rtp-store.conf", _rtp_store(settings, addresses))
    keys = settings.state_dir / "keys"
    if not keys.exists():
        write_file(keys, secrets.token_hex(32) + "\n")


def write_redis(settings: Settings) -> None:
    """Write what Redis reads, and no more."""
    write_file(_made(settings) / "redis.conf", _redis(settings))


def _made(settings: Settings) -> Path:
    """The directory of the run, made with the others if need be."""
    run = run_dir(settings)
    for directory in (settings.state_dir, run, settings.state_dir / "log", settings.state_dir / "redis"):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return run


def write_file(path: Path, text: str) -> None:
    """Write a file that a component reads, for this user only. Who reads it meanwhile has it whole."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(path)


def _kamailio(settings: Settings, node: Edge) -> str:
    listeners: dict[Endpoint, str] = {}
    for index, socket in enumerate(node.sockets):
        # A port for one registration has little to do.
        few = "socket_workers=1\n" if socket.local.port in node.own_ports else ""
        listeners.setdefault(socket.local, f'{few}listen={socket.local} name "{index}"')
    names = [f'alias="{settings.fqdn}"', *(f'alias="{s.public}"' for s in node.sockets if s.public != s.local.host)]
    return _fill(
        "kamailio/kamailio.cfg",
        workers=settings.sip.workers,
        debug=_KAMAILIO_LEVEL[settings.log_level],
        listeners="\n".join(dict.fromkeys([*listeners.values(), *names])),
        # Connections that no message's socket decides about: those to carriers.
        sources="\n".join(_source(socket.local.host) for socket in node.sockets_of(Side.OUTSIDE) if _is_tls(socket)),
        run=run_dir(settings),
        rtpengines=_engines(settings),
        ring_timeout=round(settings.sip.ring_timeout * 1000),
        handler=CHECKOUT / "kemi" / "handler.py",
    )


def _is_tls(socket: Socket) -> bool:
    return socket.local.transport == "tls"


def _source(host: str) -> str:
    return f"tcp_source_ipv6=[{host}]" if ":" in host else f"tcp_source_ipv4={host}"


def _interfaces(addresses: Addresses) -> str:
    """Where rtpengine has its ports, and what it says of them."""
    interfaces: list[str] = []
    for own, public in zip(addresses.outside, addresses.public, strict=True):
        interfaces += [f"outside/{own}" if own == public else f"outside/{own}!{public}", f"local/{own}"]
    return ";".join([*interfaces, *(f"service/{address}" for address in addresses.service)])


def _rtpengine(settings: Settings, addresses: Addresses) -> str:
    return _fill(
        "rtpengine/rtpengine.conf",
        interfaces=_interfaces(addresses),
        store=_store_lines(settings),
        control=settings.rtp.control,
        offer_timeout=math.ceil(settings.sip.ring_timeout) + _LATER,
        port_min=settings.rtp.ports.low,
        port_max=settings.rtp.ports.high,
        log_level=_RTPENGINE_LEVEL[settings.log_level],
    )


def _engines(settings: Settings) -> str:
    """All rtpengines with their weights, as Kamailio's module wants them. One of weight 0 gets no new calls."""
    engines = (Engine(settings.rtp.control, settings.rtp.weight), *settings.rtp.others)
    return " ".join(f"{'udp6' if engine.control.address.version == 6 else 'udp'}:{engine}" for engine in engines)


def _store_lines(settings: Settings) -> str:
    """What rtpengine is told of the Redis that keeps its calls."""
    if settings.rtp.store is None:
        return ""
    password = settings.store_password_file.read_text().strip()
    return (
        f"redis = {password}@{settings.rtp.store}/0\n"
        # It starts and works without, and one that hangs costs a command once in half a minute, and not each.
        "no-redis-required = true\n"
        "redis-cmd-timeout = 50\n"
        "redis-connect-timeout = 50\n"
        "redis-allowed-errors = 0\n"
        "redis-disable-time = 30\n"
        "redis-num-threads = 2\n"
    )


def _rtp_store(settings: Settings, addresses: Addresses) -> str:
    """For rtpengine, which speaks to a Redis over TCP only. It is on disk from its end to its next start.

    A call is kept with its ports and what was said of them: with other interfaces it begins anew, with its next offer.
    """
    if settings.rtp.store is None:
        return ""
    interfaces = blake2b(_interfaces(addresses).encode(), digest_size=4).hexdigest()
    return (
        "# What rtpengine knows of running calls, for its next start.\n"
        f"bind {settings.rtp.store.address}\n"
        f"port {settings.rtp.store.port}\n"
        f"requirepass {settings.store_password_file.read_text().strip()}\n"
        f'dir "{settings.state_dir / "redis"}"\n'
        f"dbfilename rtp-store-{interfaces}.rdb\n"
        "save 86400 1\n"
        "appendonly no\n"
        "daemonize no\n"
    )


def _redis(settings: Settings) -> str:
    directory = settings.state_dir / "redis"
    return (
        "# The node's own Redis: only a unix socket, every write kept.\n"
        "port 0\n"
        f'unixsocket "{settings.redis_socket}"\n'
        "unixsocketperm 600\n"
        f'dir "{directory}"\n'
        "appendonly yes\n"
        "appendfsync everysec\n"
        'save ""\n'
        "daemonize no\n"
    )


def _fill(template: str, **values: object) -> str:
    return _AtTemplate((CHECKOUT / template).read_text()).substitute(values)
