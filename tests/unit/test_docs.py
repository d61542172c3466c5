"""What the documents list is what the code does."""

import re
from pathlib import Path

from sipward.actions import ACTIONS

CHECKOUT = Path(__file__).resolve().parents[2]


def test_every_counter_is_explained_with_its_code_and_no_others_are() -> None:
    code = "\n".join(path.read_text() for path in sorted((CHECKOUT / "kemi/sipward").glob("*.py")))
    counted = set(re.findall(r'\.count\("([a-z0-9-]+)"\)', code))
    refused = {why: status for status, why in re.findall(r'Answer\((\d+), "[^"]+", "([a-z0-9-]+)"', code)}
    assert len(counted | refused.keys()) > 20

    text = (CHECKOUT / "docs/operation.md").read_text().partition("## What is counted")[2]
    explained = dict(re.findall(r"^\| `([a-z0-9-]+)` \|([^|]*)\|", text.partition("\n## ")[0], re.MULTILINE))

    assert explained.keys() == counted | refused.keys()
    wrong = [why for why, status in refused.items() if int(status) >= 300 and status not in explained[why]]
    assert wrong == []


def test_every_action_is_explained_and_no_others_are() -> None:
    text = (CHECKOUT / "docs/nethvoice.md").read_text().partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)) == ACTIONS.keys()
