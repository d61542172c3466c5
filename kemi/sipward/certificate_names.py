"""Which names have a certificate, and where it comes from: the node's own by its configuration, others on request.

What `sipward cert add` was told is kept below `state_dir`; another program says it by the files that it puts into the
folder of `[certificates]`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sipward.addresses import Addresses
from sipward.certificates import CertificateError, Certificates, alone, replace
from sipward.hosts import Address, is_host_name
from sipward.settings import Settings


@dataclass(frozen=True, slots=True)
class Acme:
    """Issued by the CA of `[acme]`."""

    directory: str

    @property
    def origin(self) -> str:
        """What is noted with a certificate that came from here."""
        return f"ACME {self.directory}"


@dataclass(frozen=True, slots=True)
class Files:
    """Files that somebody else writes."""

    chain: Path
    key: Path

    @property
    def origin(self) -> str:
        """What is noted with a certificate that came from here."""
        return str(self.chain)


@dataclass(frozen=True, slots=True)
class OwnCa:
    """Issued by the node's own CA; `addresses` are covered too."""

    addresses: tuple[Address, ...] = ()

    @property
    def origin(self) -> str:
        """What is noted with a certificate that came from here."""
        return " ".join(("own CA", *map(str, self.addresses)))


type Source = Acme | Files | OwnCa


def folded(text: str) -> str:
    """A name that a certificate may be for: a host name, or `*.` and a domain. Raises CertificateError."""
    name = text.rstrip(".").lower()
    if is_host_name(name.removeprefix("*.")) and (not name.startswith("*.") or "." in name[2:]):
        return name
    raise CertificateError(
        f"{text!r}: must be a host name such as pbx.example.org, or a wildcard such as *.example.org"
    )


def wanted(settings: Settings, addresses: Addresses) -> dict[str, Source]:
    """All names and where their certificates come from. Raises CertificateError."""
    found = in_folder(settings) | noted(settings)
    return found | {settings.fqdn: _own(settings, addresses)}


def source_of(settings: Settings, addresses: Addresses, name: str) -> Source:
    """Where a name's certificate comes from. Raises CertificateError when it has none."""
    try:
        return wanted(settings, addresses)[name]
    except KeyError:
        raise CertificateError(f"there is no certificate for {name}") from None


def in_folder(settings: Settings) -> dict[str, Source]:
    """The names that the folder has certificates for: `NAME.crt`, for a wildcard `_.example.org.crt`."""
    folder = settings.certificates.folder
    found: dict[str, Source] = {}
    for path in sorted(folder.glob("*.crt")) if folder else ():
        try:
            name = folded(f"*{path.stem[1:]}" if path.stem.startswith("_.") else path.stem)
        except CertificateError:
            continue  # something else of that program's
        found[name] = Files(path, path.with_suffix(".key"))
    return found


def _own(settings: Settings, addresses: Addresses) -> Source:
    """The source of the node's own certificate."""
    given = settings.certificates
    if settings.lets_encrypt:
        return Acme(settings.acme.directory)
    if given.certificate and given.key:
        return Files(given.certificate, given.key)
    own = OwnCa(tuple(dict.fromkeys((*addresses.outside, *addresses.public))))
    return in_folder(settings).get(settings.fqdn, own)


def noted(settings: Settings) -> dict[str, Source]:
    """What `sipward cert add` was told. Raises CertificateError."""
    path = Certificates(settings.state_dir).names
    if not path.exists():
        return {}
    try:
        return {name: _source(note, settings) for name, note in json.loads(path.read_text()).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CertificateError(f"{path}: cannot be read: {error!r}") from None


def note(settings: Settings, name: str, source: Source | None) -> None:
    """Want a certificate for a name from now on, or none any more. Raises CertificateError."""
    path = Certificates(settings.state_dir).names
    with alone(path.parent):
        notes = noted(settings)
        notes.pop(name, None)
        if source:
            notes[name] = source
        text = json.dumps({name: _note(source) for name, source in sorted(notes.items())}, indent=1)
        replace(path, text.encode())


def _note(source: Source) -> dict[str, str]:
    match source:
        case Acme():
            return {"from": "acme"}
        case Files(chain, key):
            return {"from": "files", "certificate": str(chain), "key": str(key)}
        case OwnCa():
            return {"from": "own-ca"}


def _source(note: dict[str, Any], settings: Settings) -> Source:
    match note["from"]:
        case "acme":
            return Acme(settings.acme.directory)
        case "files":
            return Files(Path(note["certificate"]), Path(note["key"]))
        case "own-ca":
            return OwnCa()
        case other:
            raise ValueError(f"no source {other!r}")
