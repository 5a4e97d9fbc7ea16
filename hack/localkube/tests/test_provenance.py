"""Where figures come from: the commit and whether it is what was measured, the machine, its load, the command."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from localkube import provenance
from localkube.provenance import Provenance


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit."""
    (tmp_path / "code").write_text("1", encoding="utf-8")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for words in (["init", "-q"], ["add", "code"], ["commit", "-qm", "One"]):
        subprocess.run([*git, *words], check=True)
    return tmp_path


def test_a_change_that_is_not_committed_makes_the_commit_dirty(repository: Path) -> None:
    clean = provenance.commit(repository)
    assert len(clean) == 40
    (repository / "other").write_text("what is not tracked is not measured", encoding="utf-8")
    assert provenance.commit(repository) == clean
    (repository / "code").write_text("2", encoding="utf-8")
    assert provenance.commit(repository) == f"{clean} dirty"


def test_the_commit_is_the_one_at_the_beginning(repository: Path) -> None:
    run = Provenance(repository, "hack/bench", ["--n", "3", "--out=/some/where/x.json", "--dir", "/some/where/folder"])
    (repository / "code").write_text("2", encoding="utf-8")

    found = run.of_run()
    assert found["commit"] == provenance.commit(repository).removesuffix(" dirty")
    assert found["command"] == "hack/bench --n 3 --out=x.json --dir folder", "no folder of this machine"
    assert set(found["machine"]) == {"cpus", "model", "memory_gib", "kernel", "python"}
    assert set(found["load"]) == {"begin", "end"}


def test_without_git_the_commit_is_unknown(tmp_path: Path) -> None:
    assert provenance.commit(tmp_path / "nothing") == "unknown"


def test_the_model_is_what_the_kernel_says_or_the_architecture() -> None:
    assert provenance.model("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: Other\n") == "Some CPU @ 2 GHz"
    assert provenance.model("processor: 0\n")


@pytest.mark.parametrize(("begin", "end", "crowded"), [(0.5, 2.3, False), (0.5, 2.5, True), (2.5, 0.1, True)])
def test_a_machine_with_more_to_do_than_it_can_is_crowded(begin: float, end: float, *, crowded: bool) -> None:
    assert provenance.is_crowded({"machine": {"cpus": 2}, "load": {"begin": begin, "end": end}}) is crowded
