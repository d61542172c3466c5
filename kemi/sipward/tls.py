"""Kamailio's TLS profiles, `tls.cfg`: which certificate answers for which name, and on what terms."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from sipward import render, rpc
from sipward.certificates import Certificate, Certificates
from sipward.settings import ProfileSettings, Settings, TlsSettings

_PATIENCE = 20.0
"""Seconds that Kamailio may take for a reload: it reads every certificate once for each of its processes."""

_MACHINE = '"/etc/ssl/certs"'
"""The CAs that the machine knows, each in a file that is read when it is needed."""
_DEFAULTS = TlsSettings()
_TERMS = (
    "method = TLSv1.2+",
    # What TLS 1.2 may use: forward secrecy and authenticated encryption (RFC 9325, 4.2). TLS 1.3 has nothing else.
    "cipher_list = ECDHE+AESGCM:ECDHE+CHACHA20",
)


def write(settings: Settings) -> None:
    """Write the file by what is in use. Kamailio reads it when it starts."""
    render.write_file(_file(settings), _text(settings))


def text_given(settings: Settings) -> str:
    """What Kamailio was given, and reads when it starts again."""
    return _file(settings).read_text()


def note_given(settings: Settings) -> None:
    """Note that Kamailio has the file as it is now."""
    _given(settings).touch()


def last_given(settings: Settings) -> float:
    """When that was noted last: seconds since the epoch."""
    return _given(settings).stat().st_mtime


def is_behind(settings: Settings) -> bool:
    """Whether Kamailio has not been given all that is in use by now."""
    file = _file(settings)
    return text_given(settings) != _text(settings) or file.stat().st_mtime > last_given(settings)


def reload(settings: Settings) -> None:
    """Have the running Kamailio take the certificates that are in use by now: for new connections; no other is touched.

    One at a time: the caller sees to it. Raises ValueError when Kamailio refuses, which goes on as before, and
    rpc.UnreachableError when it does not run; it will take them when it starts.
    """
    before = text_given(settings)
    write(settings)
    try:
        rpc.kamailio(render.run_dir(settings), "tls.reload", timeout=_PATIENCE)
    except ValueError:
        # It must still start with this file.
        render.write_file(_file(settings), before)
        raise
    note_given(settings)


def profiles(
    fqdn: str,
    certificates: Iterable[Certificate],
    chosen: TlsSettings = _DEFAULTS,
    ca_file: Path | None = None,
) -> str:
    """The text of the file. `certificates` must hold one of `fqdn`: it is for all who ask for no name that is known.

    `ca_file`: CAs that are known beyond those of the machine.
    """
    usable = list(certificates)
    own = next(one for one in usable if one.name == fqdn)
    # Kamailio looks from the bottom up: a name before the wildcards that cover it, of those the longest first.
    ranked = sorted(usable, key=lambda one: (not one.name.startswith("*."), one.name.count("."), one.name))
    parts = ["[server:default]", *_served(own, chosen)]
    for one in ranked:
        parts += ["", "[server:any]", *_named(one.name), *_served(one, chosen)]
    parts += ["", "[client:default]", *_asked(ProfileSettings(), ca_file)]
    for name, profile in sorted(chosen.profiles.items()):
        parts += ["", "[client:any]", f"server_id = {name}", f"server_name = {name}", *_asked(profile, ca_file)]
    return "\n".join(parts) + "\n"


def _file(settings: Settings) -> Path:
    return render.run_dir(settings) / "tls.cfg"


def _given(settings: Settings) -> Path:
    return render.run_dir(settings) / "tls.given"


def _text(settings: Settings) -> str:
    certificates = Certificates(settings.state_dir).usable()
    return profiles(settings.fqdn, certificates, settings.tls, settings.certificates.ca_file)


def _asked(profile: ProfileSettings, ca_file: Path | None) -> Iterator[str]:
    """Of a carrier. Kamailio says what it thinks of the certificate; `peers` decides what that means."""
    yield from _TERMS
    if profile.ca:
        yield f"ca_list = {_quoted(profile.ca)}"
    else:
        yield f"ca_path = {_MACHINE}"
        if ca_file:
            yield f"ca_list = {_quoted(ca_file)}"
    if profile.certificate and profile.key:
        yield f"certificate = {_quoted(profile.certificate)}"
        yield f"private_key = {_quoted(profile.key)}"


def _served(certificate: Certificate, chosen: TlsSettings) -> Iterator[str]:
    yield from _TERMS
    if chosen.client_ca:
        yield f"ca_list = {_quoted(chosen.client_ca)}"
        yield f"verify_client = {'on' if chosen.client_certificates == 'required' else 'optional'}"
    yield f"certificate = {_quoted(certificate.chain)}"
    yield f"private_key = {_quoted(certificate.key)}"


def _named(name: str) -> Iterator[str]:
    yield f"server_name = {name.removeprefix('*.')}"
    if name.startswith("*."):
        # The names below it, and not itself.
        yield "server_name_mode = 2"


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
