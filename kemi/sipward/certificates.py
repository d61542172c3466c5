"""Where certificates are kept, below `state_dir`. The only module that knows the layout.

    certificates/NAME/fullchain.pem, key.pem   what is in use for a name; `_.example.org` is the wildcard's folder
    certificates/_ca/ca.pem, ca.key            the node's own CA; `ca.pem` is given to phones
    certificates/_acme/account.pem             the key of the account at ACME servers
    certificates/_names.json, _tries.json      what was asked for; what could not be had

NAME is a link to a folder that never changes, and a new certificate a new folder: who has read a path from `usable` has
a certificate and its key, whatever comes later, until `tidy` removes what nobody uses.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple


class CertificateError(Exception):
    """A certificate cannot be had or used; the text says why, in a line."""


class Certificate(NamedTuple):
    """A certificate in use: PEM files, readable by this user only."""

    name: str
    """The name asked for by SNI: a host name, or `*.` and a domain."""
    chain: Path
    """The certificate and what leads to its root."""
    key: Path
    """Its private key."""

    @property
    def origin(self) -> str:
        """Where it came from, in the words of who installed it."""
        return (self.chain.parent / _ORIGIN).read_text()

    def is_same(self, chain: bytes, key: bytes, origin: str) -> bool:
        """Whether it is that one."""
        return (self.chain.read_bytes(), self.key.read_bytes(), self.origin) == (chain, key, origin)


_CHAIN, _KEY, _ORIGIN = "fullchain.pem", "key.pem", "origin"


class Certificates:
    """The certificates of one node."""

    def __init__(self, state_dir: Path) -> None:
        """Those below `state_dir`, which need not be there."""
        self._place = state_dir / "certificates"
        self.ca = self._place / "_ca" / "ca.pem"
        """The certificate of the node's own CA; it need not be there."""
        self.ca_key = self._place / "_ca" / "ca.key"
        self.account_key = self._place / "_acme" / "account.pem"
        self.names = self._place / "_names.json"
        self.tries = self._place / "_tries.json"

    def usable(self) -> list[Certificate]:
        """What is in use, by name."""
        if not self._place.exists():
            return []
        # No host name begins with a dot: that is what is not at its place, or not any more.
        folders = [path for path in self._place.iterdir() if path.is_symlink() and path.name[0] != "."]
        return sorted(_certificate(path.name, path.resolve()) for path in folders)

    def get(self, name: str) -> Certificate | None:
        """What is in use for a name."""
        folder = self._place / _folder(name)
        return _certificate(folder.name, folder.resolve()) if folder.is_symlink() else None

    def install(self, name: str, chain: bytes, key: bytes, origin: str) -> Certificate:
        """Use this for a name from now on. The caller has checked it. Raises OSError."""
        with self._alone():
            version = Path(mkdtemp(prefix=f".{_folder(name)}.", dir=self._place))
            for file, content in ((_CHAIN, chain), (_KEY, key), (_ORIGIN, origin.encode())):
                write(version / file, content)
            link = version.with_name(f"{version.name}.link")
            link.symlink_to(version.name)
            link.replace(self._place / _folder(name))
            _sync(self._place)
        return _certificate(_folder(name), version)

    def remove(self, name: str) -> None:
        """Use nothing for a name from now on."""
        (self._place / _folder(name)).unlink(missing_ok=True)

    def tidy(self, given: str) -> None:
        """Remove what is in use for no name any more, but for what is named in a text: what Kamailio was given."""
        with self._alone():
            kept = {one.chain.parent for one in self.usable()}
            for path in self._place.iterdir():
                if path.name[0] == "." and path.is_symlink():
                    path.unlink()
                elif path.name[0] == "." and path not in kept and str(path) not in given:
                    shutil.rmtree(path)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with alone(self._place):
            yield


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One at a time, in a folder that is made if need be: the node and commands are processes of their own."""
    _make(folder)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make(folder: Path) -> None:
    """Make a folder and all above it for this user only; `mkdir` would let others into those above."""
    if not folder.exists():
        _make(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def replace(path: Path, content: bytes) -> None:
    """Write a file for this user only, in one step. Who may write at the same time waits for another by `alone`."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    write(new, content)
    new.replace(path)


def write(path: Path, content: bytes) -> None:
    """Write a file that was not there, for this user only, and have it on disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folder(name: str) -> str:
    return name.replace("*", "_", 1)


def _certificate(folder: str, version: Path) -> Certificate:
    name = f"*{folder[1:]}" if folder.startswith("_.") else folder
    return Certificate(name, version / _CHAIN, version / _KEY)
