"""A CA on the Internet that issues by ACME: Pebble, Let's Encrypt's own test server, with its faults on purpose."""

import json
import time
from collections.abc import Mapping
from typing import Self

from lab.addresses import DNS, INTERNET, PEBBLE
from lab.network import Lab
from lab.pki import AUTHORITY
from lab.processes import Process

_PORT = 14000
ADDRESS = INTERNET.host(PEBBLE)[0]
DIRECTORY = f"https://{ADDRESS}:{_PORT}/dir"


class Pebble:
    """Asks the lab's DNS server for addresses, and port 80 for proof. A context manager.

    `settings` are added to its configuration, `faults` to its environment: as it is by itself, it refuses one nonce in
    twenty, keeps half of the authorizations it has, and answers slowly.
    """

    def __init__(self, lab: Lab, settings: Mapping[str, object] | None = None, faults: Mapping[str, str] | None = None):
        self._machine = lab.host_of_internet("pebble", PEBBLE)
        self._directory = lab.directory / "pebble"
        self._settings = settings or {}
        # Asked more than once a second it would still wait for up to 15 s before it looks.
        self._faults = {"PEBBLE_VA_SLEEPTIME": "1", **(faults or {})}
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self._directory.mkdir(exist_ok=True)
        files = self._directory / "chain.pem", self._directory / "key.pem"
        AUTHORITY.issue(ADDRESS).put(*files)
        config = self._directory / "pebble.json"
        config.write_text(json.dumps({"pebble": self._config(*map(str, files))}))
        log = self._directory / "log"
        log.unlink(missing_ok=True)
        argv = ["pebble", "-strict", "-config", str(config), "-dnsserver", f"{INTERNET.v4}{DNS}:53"]
        self._process = self._machine.popen(argv, log=log, env=self._faults)
        deadline = time.monotonic() + 20
        while "ACME directory available" not in self.log:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"pebble does not start\n{self.log}")
            time.sleep(0.01)
        return self

    def __exit__(self, *error: object) -> None:
        process, self._process = self._process, None
        if process:
            self._machine.lab.processes.stop(process)

    @property
    def log(self) -> str:
        """What it has said since it started."""
        path = self._directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _config(self, certificate: str, key: str) -> dict[str, object]:
        return {
            "listenAddress": f"{ADDRESS}:{_PORT}",
            "managementListenAddress": "",
            "certificate": certificate,
            "privateKey": key,
            "httpPort": 80,
            "tlsPort": 443,
            "retryAfter": {"authz": 1, "order": 1},
            "keyAlgorithm": "ecdsa",
            "profiles": {"default": {"description": "as ever", "validityPeriod": 90 * 86400}},
            **self._settings,
        }
