"""Draining changes one field of one instance and no other character."""

import json

import pytest

from sipward.drain import with_drain
from sipward.model import Endpoint

END = Endpoint("udp", "10.5.4.1", 5080)
URI = "sip:10.5.4.1:5080"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            '{"domains": ["a.org"], "instances": [{"uri": "sip:10.5.4.1:5080"}]}',
            '{"domains": ["a.org"], "instances": [{"uri": "sip:10.5.4.1:5080", "drain": true}]}',
        ),
        (
            '{"instances":[{"uri":"sip:10.5.4.2"},{"weight":2,"uri":"SIP:10.5.4.1:5080"}],"x":[{}]}',
            '{"instances":[{"uri":"sip:10.5.4.2"},{"weight":2,"uri":"SIP:10.5.4.1:5080","drain": true}],"x":[{}]}',
        ),
        (
            '\n{ "instances" :\n  [\n {\n  "uri": "sip:10.5.4.1:5080",\n  "weight": 2\n }\n]\n}\n',
            '\n{ "instances" :\n  [\n {\n  "uri": "sip:10.5.4.1:5080",\n  "weight": 2,\n  "drain": true\n }\n]\n}\n',
        ),
        (
            '{"instances": [{"drain" :false , "uri": "sip:10.5.4.1:5080", "description": "\\u00fc ü\\": ]}"}]}',
            '{"instances": [{"drain" :true , "uri": "sip:10.5.4.1:5080", "description": "\\u00fc ü\\": ]}"}]}',
        ),
    ],
)
def test_everything_else_stays_as_it_was_written(before: str, after: str) -> None:
    assert with_drain(before, END, True) == after
    assert json.loads(after)
    assert with_drain(after, END, True) == after
    assert with_drain(after, END, False) == after.replace("true", "false")


def test_one_that_is_not_drained_and_one_that_is_not_there_are_left_alone() -> None:
    text = f'{{"instances": [{{"uri": "{URI}"}}]}}'
    assert with_drain(text, END, False) == text
    assert with_drain(text, END._replace(port=5081), True) == text
    assert with_drain(text, END._replace(transport="tcp"), True) == text
    assert with_drain('{"instances": []}', END, True) == '{"instances": []}'
