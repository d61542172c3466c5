"""How many tests run at a time."""

import os

import pytest


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two or more halves of a whole run, each with a lab and a node of its own; no splitting of a part of it."""
    is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return max(2, os.cpu_count() or 1) if is_whole else 0
