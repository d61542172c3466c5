"""A node in one file, and on another machine."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.addresses import INTERNET, NODE, SITE
from lab.calls import expect_audio
from lab.eventually import eventually
from lab.network import Lab
from lab.node import CHECKOUT, Node
from lab.probe import Answerer, Asker
from lab.sipp import sipp
from sipward.records import Kind
from sipward.store import Store

from .conftest import watched_lab

MANY = 500


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with watched_lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def node(lab: Lab) -> Iterator[Node]:
    """The old machine: many routes, a number, a trunk."""
    with Node(lab) as node, Store(node.settings.redis_url) as store:
        store.fill(Kind.TENANT, {f"t{n}": tenant(f"t{n}.example") for n in range(MANY)})
        store.fill(Kind.NUMBER, {"+390721": json.dumps({"tenant": "t7"})})
        store.fill(Kind.TRUNK, {"carrier": json.dumps({"addresses": ["203.0.113.20"], "tenants": ["t7"]})})
        eventually(lambda: node.live(f"t{MANY - 1}.example") and node.live("#+390721") and node.live("%carrier"))
        yield node
        assert node.stop() == 0, node.log_tail()


def tenant(domain: str) -> str:
    return json.dumps({"domains": [domain], "instances": [{"uri": "sip:10.5.4.11:5060", "description": "pbx"}]})


@pytest.fixture(scope="module")
def file(node: Node) -> Path:
    path = node.directory / "node.backup"
    answer = node.sipward("backup", "--output", str(path))
    assert (answer.code, answer.output, answer.errors) == (0, "", "")
    return path


def test_a_backup_is_for_its_owner_alone_and_the_same_on_standard_output(node: Node, file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert node.sipward("backup").output == file.read_text()
    assert node.config.read_text() == json.loads(file.read_text())["configuration"]


def test_a_phone_that_registered_at_the_old_machine_is_called_at_the_new_one(
    node: Node, lab: Lab, own_lab: Lab, file: Path
) -> None:
    here, there = lab.instance("pbx"), own_lab.instance("pbx")
    registrar = sipp(here, "register", "uas", keys={"domain": "t7.example"})
    registered = sipp(
        lab.phone("bob"), "register", keys={"domain": "t7.example"}, answers="call-answered", talk=30, background=True
    )
    registrar.wait()
    registered.wait_for("registered")
    registered.stop()

    new = Node(own_lab)
    answer = new.sipward("restore", str(file), "--set", f"state_dir={new.state_dir}")
    assert answer.code == 0, answer
    print(f"\nrestore, node not running: {answer.output.strip()}")
    assert f"{MANY} of {MANY} tenants, 1 of 1 trunks, 1 of 1 numbers written in" in answer.output
    assert not own_lab.left_behind(), "the Redis that it needed has ended"

    new.begin()
    bob = own_lab.phone("bob")
    assert bob.address == lab.phone("bob").address
    assert all(new.live(key) for key in ("t0.example", f"t{MANY - 1}.example", "#+390721", "%carrier"))
    callee = sipp(bob, "call-answered", "uas")
    sipp(there, "call-from-instance", keys={"domain": "t7.example", "target": registrar.saved["contact"]}, talk=1.1)
    callee.wait()
    expect_audio(bob, there)

    again = new.sipward("restore", str(file))
    assert again.code == 0, again
    assert f"0 of {MANY} tenants" in again.output
    assert new.stop() == 0


def test_a_machine_that_is_another_one_is_asked_and_nothing_is_written_before(own_lab: Lab, file: Path) -> None:
    new = Node(own_lab, "nat")
    asked = new.sipward("restore", str(file), "--set", f"state_dir={new.state_dir}")
    assert asked.code == 2, asked
    missing = ", ".join(INTERNET.host(NODE))
    assert f"network.address: {missing}: is not an address of this machine" in asked.errors
    assert "--set network.address=VALUE" in asked.errors
    assert not new.config.exists()
    assert not new.state_dir.exists()
    site = SITE.host(NODE)[0]
    answers = [
        f"state_dir={new.state_dir}",
        f"network.address={site}",
        f"network.public_address={INTERNET.host(NODE)[0]}",
    ]
    done = new.sipward("restore", str(file), *(word for answer in answers for word in ("--set", answer)))
    assert done.code == 0, done
    with Answerer(own_lab.instance("pbx")), Asker(own_lab.phone("bob")) as phone:
        new.begin()
        assert phone.answered_by("sip:t3.example") == "pbx"
    assert new.stop() == 0


def test_at_a_terminal_a_person_is_asked(own_lab: Lab, file: Path) -> None:
    new = Node(own_lab, "nat")
    site = SITE.host(NODE)[0]
    here, there = os.openpty()
    words = ["restore", str(file), "--set", f"state_dir={new.state_dir}", "--config", str(new.config)]
    argv = ["nsenter", f"--net=/run/netns/{new.machine.namespace}", "--", sys.executable, "-m", "sipward", *words]
    env = own_lab.processes.with_own({"PYTHONPATH": str(CHECKOUT / "kemi")})
    os.write(here, f"198.18.0.1\n{site}\n".encode())
    done = subprocess.run(argv, stdin=there, capture_output=True, text=True, timeout=30, check=False, env=env)
    os.close(here)
    os.close(there)
    assert done.returncode == 0, done
    assert done.stdout.count("is not an address of this machine") == 2, done.stdout
    assert f'address = "{site}"' in new.config.read_text()


def test_a_running_node_takes_it_and_what_it_has_already_stays_unless_it_may_be_replaced(
    own_lab: Lab, node: Node, file: Path
) -> None:
    with Node(own_lab) as new:
        own_key = (new.state_dir / "keys").read_text()
        mine = tenant("mine.example")
        new.redis("SET", "sipward:tenant:mine", mine)
        new.redis("SET", "sipward:tenant:t1", tenant("other.example"))
        before = new.config.read_text(), new.processes()
        refused = new.sipward("restore", str(file))
        assert refused.code == 2, refused
        assert "tenant t1 is here with another value" in refused.errors
        assert (new.config.read_text(), new.processes()) == before
        assert new.redis("GET", "sipward:tenant:t2") == ""
        done = new.sipward("restore", str(file), "--replace")
        assert done.code == 0, done
        print(f"\nrestore, node running: {done.output.strip()}")
        eventually(lambda: new.live("t1.example") and not new.live("other.example"))
        assert new.redis("GET", "sipward:tenant:mine") == mine
        assert (new.state_dir / "keys").read_text() == own_key + (node.state_dir / "keys").read_text()
        restarted = {name for pid, name in new.processes().items() if pid not in before[1]}
        assert restarted == {"kamailio"}, "which reads the keys"
        assert new.ready
