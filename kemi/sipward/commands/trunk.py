"""`sipward trunk`: carriers, whom they serve and what they may do."""

import json
from typing import Annotated

import typer

from sipward import render, rpc, settings, trunks
from sipward.commands import values
from sipward.commands.options import (
    DEFAULT,
    AsJson,
    CallRate,
    Calls,
    Config,
    Description,
    RegistrationRate,
    Replace,
    limits,
)
from sipward.commands.terminal import print_values
from sipward.live import Live
from sipward.records import Kind, Record, check_name
from sipward.settings import Settings
from sipward.trunks import TrunkRecord

app = typer.Typer(no_args_is_help=True, help="Trunks: carriers, and which tenants they serve.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The trunk: a-z, 0-9, dot, hyphen, underscore.")]


@app.command()
def add(
    name: Name,
    address: Annotated[
        list[str], typer.Option("--address", help="198.51.100.0/24, sip.carrier.example:5070; may be repeated.")
    ],
    tenant: Annotated[
        list[str], typer.Option("--tenant", metavar="NAME", help="A tenant that it serves, * for all; may be repeated.")
    ],
    transport: Annotated[str, typer.Option(help="udp, tcp or tls.")] = "udp",
    number: Annotated[
        str,
        typer.Option(
            help="Where it puts the dialled number: r-uri, to, p-called-party-id, p-preferred-identity or diversion."
        ),
    ] = "r-uri",
    media: Annotated[
        str, typer.Option(help="fixed when its SDP names the addresses of its RTP, or learned.")
    ] = "fixed",
    identity: Annotated[str, typer.Option(help="What it asserts of the caller: pass or remove.")] = "remove",
    host: Annotated[
        list[str] | None,
        typer.Option("--host", help="A further host name that Request-URIs to it have; may be repeated."),
    ] = None,
    own_port: Annotated[
        bool, typer.Option("--own-port", help="Each registration there has a port to itself ([trunks] own_ports).")
    ] = False,
    srtp: Annotated[str, typer.Option(help="What it is offered: off (plain RTP), sdes or dtls.")] = "off",
    tls_name: Annotated[
        str, typer.Option(help="Over TLS: whose its certificate is, when not that of the host name in --address.")
    ] = "",
    fingerprint: Annotated[
        list[str] | None,
        typer.Option("--tls-fingerprint", help="Over TLS: SHA-256 of a certificate that is right; may be repeated."),
    ] = None,
    profile: Annotated[str, typer.Option("--tls-profile", help="Over TLS: a table of [tls.profiles].")] = "",
    calls: Calls = 0,
    call_rate: CallRate = 0,
    registration_rate: RegistrationRate = 0,
    description: Description = "",
    replace: Replace = False,
    config: Config = DEFAULT,
) -> None:
    """Add a trunk."""
    node = settings.load(config)
    value = {
        "addresses": address,
        "tenants": tenant,
        "transport": transport,
        "number": number,
        "media": media,
        "identity": identity,
        "limits": limits(calls, call_rate, registration_rate),
        "own_port": own_port,
        "srtp": srtp,
        "tls": {"name": tls_name, "fingerprints": fingerprint or [], "profile": profile}
        if tls_name or fingerprint or profile
        else None,
        "hosts": host or [],
        "description": description,
    }
    record = trunks.parse(name, json.dumps(value), values.rules_of(node))
    values.add(node, record, replace)
    typer.echo(f"trunk {name}: {', '.join(record.value.addresses)} <-> {', '.join(record.value.tenants)}")


@app.command()
def show(name: Name, config: Config = DEFAULT) -> None:
    """Print a trunk's value as it stands in Redis."""
    values.show(settings.load(config), Kind.TRUNK, check_name(name))


@app.command("list")
def list_(config: Config = DEFAULT, as_json: AsJson = False) -> None:
    """List all trunks in Redis, with where the running node sends calls to them."""
    node = settings.load(config)
    with values.opened(node) as store:
        found = values.Usage(node, store, Kind.TRUNK).of(store.list(Kind.TRUNK))
    targets = _Targets(node)
    if as_json:
        typer.echo(json.dumps([targets.as_json(name, record) for name, record in found.items()], indent=2))
    else:
        columns = ["trunk", "addresses", "tenants", "calls to it go to"]
        print_values(columns, {name: targets.cells(name, record) for name, record in found.items()})


@app.command()
def rm(name: Name, config: Config = DEFAULT) -> None:
    """Remove a trunk; its next call is a stranger's."""
    values.remove(settings.load(config), Kind.TRUNK, check_name(name))


class _Targets:
    """Where trunks lead by the running node's word."""

    def __init__(self, node: Settings) -> None:
        from sipward.node import unresolved  # noqa: PLC0415 - not every command needs the processes

        get = rpc.memory(render.run_dir(node))
        self._live = Live(get) if get else None
        self._unresolved = unresolved(node) if get else {}

    def as_json(self, name: str, record: Record | str) -> dict[str, object]:
        """`targets` is null when no node runs; `unresolved` says why host names lead nowhere new."""
        found = values.as_json(name, record)
        if isinstance(record, TrunkRecord):
            found |= {"targets": self._targets(name), "unresolved": self._complaints(record)}
        return found

    def cells(self, name: str, record: Record | str) -> list[str] | str:
        """The cells of a table."""
        if not isinstance(record, TrunkRecord):
            return str(record)
        targets = self._targets(name)
        lines = ["the node does not run"] if targets is None else targets
        lines += [f"{host}: {why}" for host, why in self._complaints(record).items()]
        return ["\n".join(record.value.addresses), "\n".join(record.value.tenants), "\n".join(lines)]

    def _targets(self, name: str) -> list[str] | None:
        if self._live is None:
            return None
        trunk = self._live.trunk(name)
        return [str(end) for end in trunk.targets] if trunk else []

    def _complaints(self, record: TrunkRecord) -> dict[str, str]:
        hosts = {trunks.parse_place(text).host for text in record.value.addresses}
        return {host: why for host, why in self._unresolved.items() if host in hosts}
