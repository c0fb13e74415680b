# SPDX-License-Identifier: Apache-2.0
"""Fixtures for all tests of whole programs; see harness.py for what they give."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import harness  # noqa: E402


@pytest.fixture
def edge(tmp_path):
    """start(rules, *args, **kwargs) -> Edge. Each is stopped at the end, which must be clean: exit status 0, nothing
    from a sanitizer, no failed assertion."""
    started = []

    def start(rules, *args, **kwargs):
        directory = tmp_path / f"edge{len(started)}"
        directory.mkdir()
        e = harness.Edge(directory, rules, *args, **kwargs)
        started.append(e)
        return e

    yield start
    for e in started:
        e.stop_clean()


@pytest.fixture
def program(tmp_path):
    """run(command, **kwargs) -> Program, ended at the end of the test."""
    started = []

    def run(command, **kwargs):
        p = harness.Program(command, tmp_path / f"program{len(started)}.out", **kwargs)
        started.append(p)
        return p

    yield run
    for p in reversed(started):
        p.stop()
