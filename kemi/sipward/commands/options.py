"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT = Path("/etc/sipward/sipward.toml")
Config = Annotated[Path, typer.Option("--config", metavar="FILE", help="The node's configuration.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Replace = Annotated[bool, typer.Option("--replace", help="Overwrite what is there.")]
Description = Annotated[str, typer.Option(metavar="TEXT", help="For people.")]

_WORD = "URI[,FIELD=VALUE]..."
_HELP = "sip:10.5.4.1:5080,weight=2; may be repeated. FIELD is weight, priority, description, drain or srtp."
Instances = Annotated[list[str], typer.Option("--instance", metavar=_WORD, help=_HELP)]
OwnInstances = Annotated[list[str] | None, typer.Option("--instance", metavar=_WORD, help=_HELP)]

Calls = Annotated[int, typer.Option(metavar="N", help="At most so many calls at once; 0: no limit.")]
CallRate = Annotated[
    int, typer.Option("--calls-per-second", metavar="N", help="At most so many new calls a second; 0: no limit.")
]
RegistrationRate = Annotated[
    int,
    typer.Option(
        "--registrations-per-second", metavar="N", help="At most so many registrations a second; 0: no limit."
    ),
]


def limits(calls: int, call_rate: int, registration_rate: int) -> dict[str, int]:
    """The field `limits` of a value."""
    return {"calls": calls, "calls_per_second": call_rate, "registrations_per_second": registration_rate}
