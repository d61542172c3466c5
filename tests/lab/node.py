"""A Sipward node on one of the lab's machines: configured, started, asked, looked into and stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lab.addresses import DNS, GATEWAY, INTERNET, LOCAL, NODE, SERVICE, SITE
from lab.eventually import PATIENCE, eventually
from lab.network import Lab, Machine, Place
from lab.packets import Address
from lab.pebble import DIRECTORY
from lab.pki import known, private_profile
from lab.processes import Process
from sipward import live, numbers, rpc
from sipward import node as product
from sipward.live import RESTING, decode_trunk, trunk_key
from sipward.settings import Control, Settings, load

CHECKOUT = Path(__file__).resolve().parents[2]
FQDN = "edge.example.net"
PLAN = numbers.Plan(country="39")
"""Numbers are dialled as in Italy."""
_LOGS = ("sipward", "kamailio", "certificates", "rtpengine", "redis")

type Table = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command said and how it ended."""

    code: int
    output: str
    errors: str


class Node:
    """Sipward on `lab.node(place)`. A context manager; `settings` overlay the lab's defaults table by table."""

    def __init__(
        self, lab: Lab, place: Place = "public", settings: Mapping[str, Any] | None = None, name: str = "node"
    ) -> None:
        self.lab = lab
        self.machine: Machine = lab.node(place)
        self.directory = lab.directory / name
        self.state_dir = self.directory / "state"
        self.config = self.directory / "sipward.toml"
        self._table = _merge(self._defaults(place), settings or {})
        self._process: Process | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self, within: float = 120.0) -> Self:
        """Write the configuration, run `sipward up`, and come back when calls can be routed."""
        return self.configure().begin(within)

    def begin(self, within: float = 60.0) -> Self:
        """Start by the configuration that is there."""
        self._process = self.machine.popen(self._command("up"), log=self._log("sipward"), env=_ENVIRONMENT)
        self.wait_ready(within)
        return self

    def configure(self) -> Self:
        """Write the configuration only."""
        self.directory.mkdir(exist_ok=True)
        self.config.write_text(to_toml(self._table))
        return self

    def reconfigure(self, settings: Mapping[str, Any]) -> None:
        """Write a configuration that differs in these; the node takes it when it is told to."""
        self._table = _merge(self._table, settings)
        self.configure()

    def wait_ready(self, within: float = 120.0) -> None:
        """Ask for its status until it is ready; RuntimeError with the logs when it ends or takes too long."""
        deadline = time.monotonic() + within
        while not self.ready:
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"the node ended while starting\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the node is not ready after {within} s: {self.status()}\n{self.log_tail()}")
            time.sleep(0.02)

    def wait_in_step(self) -> None:
        """Wait until all that is in Redis is live. A node routes by its last good table a moment before."""
        eventually(lambda: self.status()["components"]["redis"]["state"] == "ok", what="the table is in step")

    def kill_kamailio(self) -> None:
        """Kill Kamailio; come back when another one routes by what is in Redis."""
        before = self._kamailio
        os.kill(before, signal.SIGKILL)
        eventually(lambda: self._kamailio not in (0, before), what="another Kamailio")
        self.wait_ready()
        self.wait_in_step()

    @property
    def _kamailio(self) -> int:
        return next((pid for pid, name in self.processes().items() if name == "kamailio"), 0)

    def stop(self) -> int:
        """Stop it as a service manager would, by SIGTERM; its exit code."""
        process, self._process = self._process, None
        return self.lab.processes.stop(process, patience=20.0) if process else 0

    @property
    def pid(self) -> int:
        """The id of `sipward up`."""
        if self._process is None:
            raise RuntimeError("the node does not run")
        return self._process.pid

    def processes(self) -> dict[int, str]:
        """The node's own children, by process id: redis-server, rtpengine and kamailio's main process."""
        found = {}
        for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            with suppress(OSError):  # one that has just ended
                found[int(pid)] = Path(f"/proc/{pid}/comm").read_text().rstrip()
        return found

    # --- questions ------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The configuration as the product reads it."""
        return load(self.config)

    def status(self) -> dict[str, Any]:
        """What `sipward status --json` says, without starting a process for it."""
        return self.machine.inside(lambda: product.status(self.settings))

    @property
    def ready(self) -> bool:
        return bool(self.status()["ready"])

    def rpc(self, method: str, *params: object) -> Any:
        """Call a Kamailio RPC command. Raises rpc.UnreachableError, or ValueError when Kamailio refuses."""
        return rpc.kamailio(self.state_dir / "run", method, *params)

    def is_connected(self, place: Address) -> bool:
        """Whether it has a TCP connection from there."""
        return any((one["src_ip"], int(one["src_port"])) == place for one in self.rpc("core.tcp_list"))

    def media_calls(self, control: Control | None = None) -> list[str]:
        """The calls that rtpengine, or the one at another place, has right now, by `tenant/Call-ID`."""
        control = control or self.settings.rtp.control

        def ask() -> bytes:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
                asker.settimeout(PATIENCE)
                asker.connect((str(control.address), control.port))
                # A cookie of its own each time: to a known one rtpengine repeats its old answer.
                asker.send(os.urandom(8).hex().encode() + b" d7:command4:list5:limiti1000ee")
                return asker.recv(1 << 16)

        answer = self.machine.inside(ask).decode()
        # Bencoded: `5:callsl` and then strings, each with its length before it, up to an `e`.
        rest, calls = answer.partition("5:callsl")[2], []
        while rest and rest[0].isdigit():
            size, _, rest = rest.partition(":")
            calls.append(rest[: int(size)])
            rest = rest[int(size) :]
        return calls

    def sipward(self, *arguments: str, timeout: float = 60.0, stdin: str = "") -> Answer:
        """Run a command of the product on the node's machine, with the node's configuration; never at a terminal."""
        argv = ["nsenter", f"--net=/run/netns/{self.machine.namespace}", "--", *self._command(*arguments)]
        env = self.lab.processes.with_own(_ENVIRONMENT)
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False, env=env)
        return Answer(done.returncode, done.stdout, done.stderr)

    def log_tail(self, lines: int = 25) -> str:
        """The end of each component's log."""
        parts = []
        for name in _LOGS:
            path = self._log(name)
            if path.exists():
                tail = [line[:300] for line in path.read_text(errors="replace").splitlines()[-lines:]]
                parts.append(f"--- {name}.log\n" + "\n".join(tail))
        return "\n".join(parts)

    def log(self, name: str) -> str:
        """All of one component's log: sipward, kamailio, rtpengine or redis."""
        return self._log(name).read_text(errors="replace")

    def last_good_table(self) -> str:
        """What a start without Redis would begin with: all of its files, as they are."""
        return "".join(path.read_text() for path in (self.state_dir / "table").glob("*.jsonl"))

    # --- routes ---------------------------------------------------------------------------------------------------

    def redis(self, *command: str) -> str:
        """Speak to the node's Redis by hand, with redis-cli."""
        socket = str(self.state_dir / "redis" / "redis.sock")
        done = subprocess.run(
            ["redis-cli", "-s", socket, *command], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if done.returncode:
            raise RuntimeError(f"redis-cli {command}: {done.stdout}{done.stderr}")
        return done.stdout.rstrip("\n")

    def route_add(
        self, name: str, domains: Iterable[str], instances: Sequence[Machine | str | Table], **fields: object
    ) -> None:
        """Write a tenant by hand into Redis and wait until it is live.

        Instances are machines, URIs or whole values.
        """
        value = {"domains": list(domains), "instances": [_instance(i) for i in instances], **fields}
        self.put(name, value)

    def put(self, name: str, value: Table) -> None:
        """Write a tenant's value and wait until the live table has it."""
        key, text = f"sipward:tenant:{name}", json.dumps(value)
        if self.redis("GET", key) == text:
            return
        keys = [live.tenant_key(name), *_domains(value)]
        before = [self.live(one) for one in keys]
        self.redis("SET", key, text)

        def is_live() -> bool:
            # Entry by entry they are written, all of them the same.
            now = [self.live(one) for one in keys]
            return now != before and len(set(now)) == 1

        self.wait_live(is_live, name)

    def route_remove(self, name: str) -> None:
        """Delete a tenant by hand and wait until none of its domains leads anywhere."""
        text = self.redis("GET", f"sipward:tenant:{name}")
        if not text:
            return
        self.redis("DEL", f"sipward:tenant:{name}")
        keys = [live.tenant_key(name), *_domains(json.loads(text))]
        self.wait_live(lambda: not any(map(self.live, keys)), name)

    # --- numbers and trunks ---------------------------------------------------------------------------------------

    def number_put(self, rule: str, value: Table) -> None:
        """Write a number's value by hand and wait until the live table has it. `rule` may end in `@TRUNK`."""
        self._put_value(f"sipward:number:{rule}", value, number_key(rule))

    def number_remove(self, rule: str) -> None:
        """Delete a number by hand and wait until it leads nowhere."""
        self._remove_value(f"sipward:number:{rule}", number_key(rule))

    def trunk_put(self, name: str, value: Table) -> None:
        """Write a trunk's value by hand and wait until the live table has it; its names may be looked up later."""
        self._put_value(f"sipward:trunk:{name}", value, trunk_key(name))

    def trunk_remove(self, name: str) -> None:
        """Delete a trunk by hand and wait until it is gone."""
        self._remove_value(f"sipward:trunk:{name}", trunk_key(name))

    def targets(self, trunk: str) -> list[str]:
        """Where calls to a trunk go now, in the order of trying: `udp:203.0.113.80:5060`."""
        entry = self.live(trunk_key(trunk))
        return list(map(str, decode_trunk(entry).targets)) if entry else []

    def _put_value(self, key: str, value: Table, live: str) -> None:
        before = self.live(live)
        self.redis("SET", key, json.dumps(value))
        self.wait_live(lambda: self.live(live) != before, key)

    def _remove_value(self, key: str, live: str) -> None:
        if self.redis("DEL", key) != "0":
            self.wait_live(lambda: not self.live(live), key)

    def down(self) -> dict[str, str]:
        """Instances that calls leave out now, and why."""
        slots = self.rpc("htable.dump", "health") or []
        return {item["name"]: str(item["value"]) for slot in slots for item in slot["slot"]}

    def forget_health(self) -> None:
        """Take every instance for well, whatever was found."""
        self.rpc("htable.flush", "health")

    def forget_resting(self) -> None:
        """Let every border of a carrier be called again at once."""
        self.rpc("htable.flush", RESTING)

    def live(self, key: str) -> str:
        """What the live table says at a key; empty for nothing."""
        try:
            return str(self.rpc("htable.get", "routes", key)["item"]["value"])
        except ValueError:
            return ""

    def wait_live(self, condition: Callable[[], bool], name: str) -> None:
        """Wait until an edit shows in the live table."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the edit of {name} is not live: {self.status()}\n{self.log_tail()}")
            time.sleep(0.002)

    # --- files ----------------------------------------------------------------------------------------------------

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "sipward", *arguments, "--config", str(self.config)]

    def _log(self, name: str) -> Path:
        return self.directory / "sipward.log" if name == "sipward" else self.state_dir / "log" / f"{name}.log"

    def _defaults(self, place: Place) -> dict[str, Any]:
        addresses: dict[Place, Table] = {
            "public": {"address": list(INTERNET.host(NODE))},
            "nat": {"address": SITE.host(NODE)[0], "public_address": INTERNET.host(NODE)[0]},
            "local": {"address": LOCAL.host(GATEWAY)[0]},
        }
        service = SERVICE.host(GATEWAY) if place == "public" else SERVICE.host(GATEWAY)[:1]
        return {
            "fqdn": FQDN,
            "state_dir": str(self.state_dir),
            "network": {
                **addresses[place],
                "service_address": list(service),
                "service_networks": [f"{SERVICE.v4}0/24", f"{SERVICE.v6}/64"],
                "local_networks": [f"{LOCAL.v4}0/24"],
            },
            "rtp": {"ports": "20000-20999"},
            "tls": {"profiles": {"private": {name: str(path) for name, path in private_profile(FQDN).items()}}},
            "dns": {"servers": [f"{INTERNET.v4}{DNS}"]},
            "numbers": {"country_code": PLAN.country},
            # A scenario knows what it will hear. A test of OPTIONS to instances, or of pings, says how often they come.
            "health": {"interval": 0},
            "sip": {"keepalive": 0},
            # Nobody but the lab's own CA is ever asked, and nothing is waited for that operators wait for.
            "certificates": {"ca_file": str(known()), "reload_interval": 1},
            "acme": {"directory": DIRECTORY, "retry_interval": 1},
        }


_ENVIRONMENT = {"PYTHONPATH": str(CHECKOUT / "kemi"), "PYTHONDONTWRITEBYTECODE": "1"}


def _instance(instance: Machine | str | Table) -> Table:
    match instance:
        case str():
            return {"uri": instance}
        case Machine():
            return {"uri": f"sip:{instance.address}:{instance.sip_port}"}
        case _:
            return instance


def number_key(rule: str) -> str:
    """The live table's key of a rule as it is written in Redis."""
    number, _, trunk = rule.partition("@")
    return live.number_key(numbers.canonical(number, PLAN), trunk)


def _domains(value: Table) -> list[str]:
    domains = value.get("domains")
    return [str(domain).rstrip(".").lower() for domain in domains] if isinstance(domains, list) else []


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        merged[key] = _merge(merged.get(key, {}), value) if isinstance(value, Mapping) else value
    return merged


def to_toml(table: Mapping[str, Any], above: str = "") -> str:
    """A table with tables in it as TOML. JSON's strings, numbers, booleans and lists are TOML's too."""
    plain = [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    for key, value in table.items():
        if isinstance(value, Mapping):
            plain += ["", f"[{above}{key}]", to_toml(value, f"{above}{key}.").strip()]
    return "\n".join(plain) + "\n"
