"""What holds Kamailio and our Python together: the functions we call, the callbacks it calls, the net under them."""

import ast
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.agent import Agent
from lab.eventually import eventually
from lab.network import Machine
from lab.node import CHECKOUT, Node
from lab.probe import Answerer, Asker
from sipward import live
from sipward.guard import Callbacks

from .conftest import Tenant

KEMI = CHECKOUT / "kemi"
OLDEST = (6, 1, 1)

type Functions = dict[str, int]
"""`module.name` -> number of parameters. The core's functions have no module."""
type Make = Callable[..., Tenant]


def stub() -> Functions:
    """What KSR.pyi declares."""
    found: Functions = {}
    for node in ast.parse((KEMI / "KSR.pyi").read_text()).body:
        match node:
            case ast.FunctionDef():
                found[node.name] = len(node.args.args)
            case ast.ClassDef():
                methods = (entry for entry in node.body if isinstance(entry, ast.FunctionDef))
                found |= {f"{node.name}.{entry.name}": len(entry.args.args) for entry in methods}
    return found


def calls() -> list[tuple[str, int]]:
    """Every call of KSR in the product's files, with the number of its arguments."""
    trees = (ast.parse(path.read_text()) for path in KEMI.rglob("*.py"))
    found = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [(ast.unparse(call.func), len(call.args) + len(call.keywords)) for call in found]
    return [(name.removeprefix("KSR."), count) for name, count in named if re.fullmatch(r"KSR(?:\.\w+){1,2}", name)]


def exported(node: Node) -> Functions:
    """What the running Kamailio offers to Python."""
    functions = [entry["func"] for entry in node.rpc("app_python.api_list")["methods"]]
    return {".".join(filter(None, (f["module"], f["name"]))): parameters(f["params"]) for f in functions}


def parameters(types: str | None) -> int:
    """How many there are in `str, int`; Kamailio writes `none` for none."""
    return 0 if types in {None, "", "none"} else str(types).count(",") + 1


# --- what we call -------------------------------------------------------------------------------------------------


def test_every_function_of_the_stub_is_what_the_running_kamailio_exports(node: Node) -> None:
    # The core's `x` and `pv` are built into app_python3 itself and not in its list.
    offered, declared = exported(node), stub()
    known = {name: count for name, count in declared.items() if not name.startswith("pv.")}
    assert len(known) > 30
    assert known == {name: offered.get(name) for name in known}


def test_every_call_of_kamailio_is_in_the_stub_with_as_many_arguments() -> None:
    declared, called = stub(), calls()
    assert len(called) > 30
    assert [call for call in called if declared.get(call[0]) != call[1]] == []


def test_the_stub_declares_nothing_that_is_not_called() -> None:
    assert stub().keys() - {name for name, _ in calls()} == set()


def test_kamailio_is_one_that_no_short_frame_kills(node: Node) -> None:
    version = re.search(r"(\d+)\.(\d+)\.(\d+)", str(node.rpc("core.version")))
    assert version
    assert tuple(map(int, version.groups())) >= OLDEST


def test_the_modules_of_the_configuration_are_loaded_and_no_others(node: Node) -> None:
    wanted = re.findall(r'^loadmodule "(\w+)\.so"', (CHECKOUT / "kamailio/kamailio.cfg").read_text(), re.MULTILINE)
    assert sorted(node.rpc("core.modules")) == sorted(wanted)


# --- what calls us ------------------------------------------------------------------------------------------------


def callback_names() -> set[str]:
    """Names of our callbacks that are handed to Kamailio, by Python and by the configuration."""
    texts = [(KEMI / "sipward/kamailio.py").read_text(), (CHECKOUT / "kamailio/kamailio.cfg").read_text()]
    return {name for text in texts for name in re.findall(r"\bksr_\w+", text)}


def test_every_callback_that_kamailio_is_told_of_exists() -> None:
    names = callback_names() | {"ksr_request_route", "child_init"}
    assert {"ksr_reply", "ksr_failure", "ksr_sync"} <= names
    assert [name for name in names if not callable(getattr(Callbacks, name, None))] == []


def test_every_callback_is_one_that_kamailio_is_told_of() -> None:
    defined = {name for name in vars(Callbacks) if not name.startswith("_")}
    assert defined - {"ksr_request_route", "child_init"} == callback_names() & defined


# --- the net under it ---------------------------------------------------------------------------------------------


@pytest.fixture
def acme(node: Node, pbx: Machine, tenant: Make) -> Iterator[Tenant]:
    """A tenant whose entries a test may break; they are made whole again."""
    acme = tenant(pbx)
    keys = acme.domain, live.tenant_key(acme.name)
    whole = {key: node.live(key) for key in keys}
    yield acme
    for key, entry in whole.items():
        node.rpc("htable.sets", "routes", key, entry)


def break_entry(node: Node, key: str) -> None:
    node.rpc("htable.sets", "routes", key, "no JSON at all")
    assert node.live(key) == "no JSON at all"


def counted(node: Node, why: str) -> int:
    try:
        return int(node.rpc("htable.get", "counters", why)["item"]["value"])
    except ValueError:
        return 0


def log_of(node: Node, call_id: str) -> list[str]:
    """Kamailio's lines about a call."""
    return [line for line in node.log("kamailio").splitlines() if f"callid={call_id}" in line]


@pytest.mark.parametrize("method", ["OPTIONS", "INVITE", "REGISTER", "MESSAGE", "BYE"])
def test_an_exception_in_python_is_one_500_a_counter_and_a_traceback_and_the_next_message_is_fine(
    method: str, node: Node, bob: Machine, acme: Tenant, tenant: Make, pbx: Machine
) -> None:
    other, before, call_id = tenant(pbx), counted(node, "exception"), f"broken-{method.lower()}"
    break_entry(node, acme.domain)
    with Answerer(pbx), Asker(bob) as phone:
        answers = list(phone.answers(f"sip:200@{acme.domain}", method, call_id=call_id))
        assert [answer.status for answer in answers] == [500]
        assert counted(node, "exception") == before + 1
        lines = log_of(node, call_id)  # they are written before it is answered
        assert any("Traceback" in line for line in lines)
        assert any("live.py" in line for line in lines)
        assert any("JSONDecodeError" in line for line in lines)
        assert phone.answered_by(f"sip:{other.domain}") == "pbx"
        assert phone.status("sip:nobody.example") == 404


def test_what_is_not_utf8_is_a_400_and_one_line_that_says_when_and_who(node: Node, phone: Agent) -> None:
    before, call_id = counted(node, "not-utf8"), "not-utf8-at-all"
    fields = ["From: <sip:\xe9@x.example>;tag=1", "To: <sip:2@x.example>", f"Call-ID: {call_id}", "CSeq: 1 MESSAGE"]
    phone.send(phone.compose("MESSAGE sip:2@x.example", fields).encode("latin-1"))
    phone.expect(400)
    assert counted(node, "not-utf8") == before + 1
    (line,) = eventually(lambda: log_of(node, call_id))
    words = dict(word.split("=", 1) for word in line.split() if "=" in word)
    told = datetime.fromisoformat(words.pop("time"))
    assert timedelta() <= datetime.now(UTC) - told < timedelta(minutes=1)
    assert words == {
        "event": "refused", "why": "not-utf8", "method": "MESSAGE", "src_ip": phone.host, "tenant": "-", "code": "400",
        "callid": call_id,
    }  # fmt: skip


@pytest.mark.may_show("10.5.4.")
def test_an_exception_in_a_reply_passes_the_reply_on_and_leaves_a_traceback(
    node: Node, bob: Machine, acme: Tenant, pbx: Machine
) -> None:
    before, call_id = counted(node, "exception"), "broken-reply"
    break_entry(node, live.tenant_key(acme.name))
    # A header field that names the instance is swept with the tenant's domain, which cannot be read now.
    with Answerer(pbx, headers=f"X-Name: {pbx.address}\r\n"), Asker(bob) as phone:
        answers = list(phone.answers(f"sip:200@{acme.domain}", call_id=call_id))
    assert counted(node, "exception") == before + 1
    assert any("Traceback" in line for line in log_of(node, call_id))
    assert [answer.status for answer in answers] == [200]


def test_callers_see_every_exception_even_at_a_hundred_a_second(
    node: Node, bob: Machine, acme: Tenant, tenant: Make, pbx: Machine
) -> None:
    other, before = tenant(pbx), counted(node, "exception")
    break_entry(node, acme.domain)
    with Answerer(pbx), Asker(bob) as phone:
        statuses = [phone.status(f"sip:{acme.domain}") for _ in range(100)]
        assert statuses == [500] * 100
        assert counted(node, "exception") == before + 100
        assert phone.answered_by(f"sip:{other.domain}") == "pbx"


def test_the_handler_is_loaded_from_the_checkout(node: Node) -> None:
    assert f'"{KEMI / "handler.py"}"' in (node.state_dir / "run/kamailio.cfg").read_text()
    assert Path(KEMI / "handler.py").exists()
