"""Copies of a process run to the end of their block, and what fails in one fails the test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from . import virtual
from .copies import Copies


async def steps(copies: Copies, done: Path) -> None:
    """Three steps; a copy that is made at one of them notes which, and who it is."""
    for step in range(3):
        if copies.is_copy(f"copy at {step}"):
            with done.open("a", encoding="utf-8") as file:
                file.write(f"{step} {os.getpid()}\n")
            return


def test_a_copy_is_made_at_each_moment_in_a_process_of_its_own(tmp_path: Path) -> None:
    copies, done = Copies(), tmp_path / "done"
    with copies.made_within():
        virtual.run(lambda _: steps(copies, done))
    lines = [line.split() for line in done.read_text(encoding="utf-8").splitlines()]
    assert [step for step, _ in lines] == ["0", "1", "2"]
    assert len({pid for _, pid in lines} | {str(os.getpid())}) == 4
    assert copies.count == 3


def test_what_fails_in_a_copy_fails_the_block_once_all_copies_have_ended() -> None:
    async def scenario(copies: Copies) -> None:
        for step in range(3):
            if copies.is_copy(f"copy at {step}"):
                assert step != 1, "made on purpose"
                return

    copies = Copies()
    with pytest.raises(AssertionError, match=r"(?s)^copy at 1:.*made on purpose"), copies.made_within():
        virtual.run(lambda _: scenario(copies))
    assert copies.count == 3


def test_a_copy_that_says_nothing_fails_the_block() -> None:
    async def scenario(copies: Copies) -> None:
        if copies.is_copy("copy"):
            os._exit(3)

    copies = Copies()
    with pytest.raises(AssertionError, match=r"copy: it ended with status \d+ and said nothing"), copies.made_within():
        virtual.run(lambda _: scenario(copies))


def test_what_fails_outside_a_copy_is_raised_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"), Copies().made_within():
        raise KeyError("mine")
