"""What stands for kstatus in all tests says the same as the library itself: of each state of the operator, and of any conditions."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localkube.programs.binaries import provide
from localkube.programs.versions import kstatus_programs
from outside.kstatus import Verdict, by_library, verdict
from unit.core.test_kstatus import STALLS, resource
from unit.core.witnesses import WITNESSES

Obj = dict[str, Any]


@pytest.fixture(scope="module")
def library() -> Path:
    """The program around the library, built if it is not here yet."""
    return provide(os.environ, programs=kstatus_programs())["kstatus"]


def any_resource() -> Iterator[Obj]:
    """Each order and status of the conditions that kstatus knows, observed or not, deleted or not."""
    words = [None, "True", "False", "Unknown"]
    for kinds in itertools.permutations(("Ready", "Reconciling", "Stalled")):
        for states, observed, leaves in itertools.product(itertools.product(words, repeat=3), (None, 1, 2), (False, True)):
            conditions = [{"type": kind, "status": state} for kind, state in zip(kinds, states, strict=True) if state]
            meta: Obj = {"generation": 2, **({"deletionTimestamp": "2027-01-04T12:00:00Z"} if leaves else {})}
            yield {"metadata": meta, "status": {"conditions": conditions, **({"observedGeneration": observed} if observed else {})}}
    yield {"metadata": {"generation": 1}}


def test_any_conditions(library: Path) -> None:
    objects = [*any_resource()]
    assert [*map(verdict, objects)] == by_library(library, objects)
    assert set(map(verdict, objects)) == set(Verdict)


def test_each_state_of_the_operator(library: Path) -> None:
    objects = [resource(one) for witness in WITNESSES.values() for one in (witness, *(stall(witness) for stall in STALLS.values()))]
    assert [*map(verdict, objects)] == by_library(library, objects)
