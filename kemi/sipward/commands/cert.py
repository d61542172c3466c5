"""`sipward cert`: which names have a certificate, where it comes from, and getting another one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from sipward import addresses, certificate_report, render, settings
from sipward.addresses import Addresses
from sipward.certificate_names import Acme, Files, OwnCa, Source, folded, in_folder, note, noted, source_of, wanted
from sipward.certificates import CertificateError, Certificates
from sipward.commands.options import DEFAULT, AsJson, Config, Replace
from sipward.commands.terminal import fail, print_table
from sipward.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Certificates: the node's own, and those of other names.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A host name, or *.DOMAIN.")]


class _Node(NamedTuple):
    settings: Settings
    addresses: Addresses


@app.command("list")
def list_(config: Config = DEFAULT, as_json: AsJson = False) -> None:
    """List the names with a certificate: where it comes from, when it expires, what is wrong."""
    found = [_shown(_node(config), name) for name in _names(_node(config))]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        columns = ["name", "from", "expires", "problem"]
        print_table(columns, [[str(one.get(column, "")) for column in columns] for one in found])


@app.command()
def show(name: Name, config: Config = DEFAULT, as_json: AsJson = False) -> None:
    """Show the certificate that is in use for a name."""
    node, name = _node(config), _folded(name)
    if name not in _names(node):
        fail(f"there is no certificate for {name}", 1)
    found = _shown(node, name)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        for key, value in found.items():
            typer.echo(f"{key:<12}{', '.join(value) if isinstance(value, list) else value}".rstrip())


@app.command()
def add(
    name: Name,
    lets_encrypt: Annotated[bool, typer.Option("--lets-encrypt", help="From the CA of [acme].")] = False,
    own_ca: Annotated[bool, typer.Option("--own-ca", help="From the node's own CA.")] = False,
    certificate: Annotated[Path | None, typer.Option(metavar="FILE", help="PEM, with what leads to its root.")] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key.")] = None,
    replace: Replace = False,
    config: Config = DEFAULT,
) -> None:
    """Get a certificate for a further name and keep it: renewed in time, or taken again when its file changes."""
    node, name = _node(config), _folded(name)
    source = _source(node, lets_encrypt, own_ca, certificate, key)
    if name == node.settings.fqdn:
        fail(f"{name} is the node's own name: lets_encrypt and [certificates] of its configuration say where from", 2)
    if isinstance(source, Acme) and name.startswith("*."):
        fail(f"{name}: a wildcard cannot be had by HTTP-01: give its --certificate and --key", 2)
    if name in noted(node.settings) and not replace:
        fail(f"the certificate for {name} exists: --replace gets another one", 2)
    _fetch(node, name, source)
    note(node.settings, name, source)


@app.command("rm")
def remove(name: Name, config: Config = DEFAULT) -> None:
    """Forget a name: nothing is renewed for it any more, and phones that ask for it get the node's own certificate."""
    node, name = _node(config), _folded(name)
    if name == node.settings.fqdn:
        fail(f"{name} is the node's own name, which always has a certificate", 2)
    if name in in_folder(node.settings) and name not in noted(node.settings):
        fail(f"{name} has its files in {node.settings.certificates.folder}: remove those first", 1)
    if name not in _names(node):
        fail(f"there is no certificate for {name}", 1)
    note(node.settings, name, None)
    Certificates(node.settings.state_dir).remove(name)
    typer.echo(f"certificate for {name} removed")


@app.command()
def renew(name: Name, config: Config = DEFAULT) -> None:
    """Get another certificate from where the one for this name comes from, now."""
    node, name = _node(config), _folded(name)
    _fetch(node, name, source_of(*node, name))


def _node(config: Path) -> _Node:
    found = settings.load(config)
    return _Node(found, addresses.resolve(found))


def _folded(name: str) -> str:
    try:
        return folded(name)
    except CertificateError as error:
        fail(str(error), 2)


def _source(node: _Node, lets_encrypt: bool, own_ca: bool, certificate: Path | None, key: Path | None) -> Source:
    given = [lets_encrypt, own_ca, certificate is not None or key is not None]
    if given.count(True) != 1 or (certificate is None) != (key is None):
        fail("give one of --lets-encrypt, --own-ca, or --certificate and --key", 2)
    if certificate and key:
        return Files(certificate.absolute(), key.absolute())
    return Acme(node.settings.acme.directory) if lets_encrypt else OwnCa()


def _fetch(node: _Node, name: str, source: Source) -> None:
    from sipward.certificate_check import installed  # noqa: PLC0415 - only some commands need OpenSSL
    from sipward.certificate_sources import fetch  # noqa: PLC0415 - as above

    before = Certificates(node.settings.state_dir).get(name)
    taken = fetch(*node, name, source)
    what = "is the one that is in use" if taken == before else "taken"
    typer.echo(f"certificate for {name} from {source.origin} {what}; it expires {installed(taken.chain).not_after}")


def _names(node: _Node) -> list[str]:
    usable = [one.name for one in Certificates(node.settings.state_dir).usable()]
    return sorted({*usable, *wanted(*node)})


def _shown(node: _Node, name: str) -> Mapping[str, object]:
    """A name for programs and people."""
    from sipward import certificate_check  # noqa: PLC0415 - as above

    certificates = Certificates(node.settings.state_dir)
    report = certificate_report.read(render.run_dir(node.settings))
    problem = report.names[name].problem if report and name in report.names else ""
    there = certificates.get(name)
    if there is None:
        return {"name": name, "problem": problem or "there is none yet"}
    found = certificate_check.installed(there.chain)
    shown = {
        "name": name,
        "from": there.origin,
        "names": list(found.names),
        "issuer": found.issuer,
        "begins": found.not_before.isoformat(),
        "expires": found.not_after.isoformat(),
        "serial": found.serial,
        "sha256": found.sha256,
        "certificate": str(there.chain),
        "key": str(there.key),
    }
    if isinstance(wanted(*node).get(name), OwnCa):
        shown["ca"] = str(certificates.ca)
    return shown | {"problem": problem}
