"""Lanes that cannot run: CI fails unless each may be skipped, and says so at the end; elsewhere they are skipped, and that is said too."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .forked import Forks, forks

ROOT = Path(__file__).resolve().parents[2]
LOCKED_OUT = "There is no program 'docker': install it."


class Machine:
    """A machine for .ci/run, with programs that only note that they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs, self.calls = folder, folder / "bin", folder / "calls"
        for name in (".ci", "hack", "bin", "postgresql"):
            (folder / name).mkdir()
        shutil.copy(ROOT / ".ci" / "run", folder / ".ci" / "run")
        for name in ("bash", "dirname", "ls"):
            (self.programs / name).symlink_to(shutil.which(name) or name)
        self.program("make")
        self.program("docker")
        self.program("chromium")
        self.program("id", "echo 0")
        self.kind("exit 0")

    def program(self, name: str, text: str = "", *, folder: Path | None = None) -> None:
        path = (folder or self.programs) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {self.calls}\n{text}\n', encoding="utf-8")
        path.chmod(0o755)

    def kind(self, check: str) -> None:
        """What ``hack/kind-offline check`` does."""
        self.program("kind-offline", f'[ "$1" = check ] || exit 0\n{check}', folder=self.folder / "hack")

    def postgres(self) -> str:
        """Shell that puts PostgreSQL where Debian does."""
        folder = self.folder / "postgresql" / "15" / "bin"
        names = " ".join(str(folder / name) for name in ("initdb", "postgres"))
        return f"/bin/mkdir -p {folder}; for each in {names}; do echo > $each; /bin/chmod 755 $each; done"

    def run(self, **env: str) -> tuple[int, str, list[str]]:
        """Run it: exit status, the last line of its output, and what was called."""
        given = {"PATH": str(self.programs), "POSTGRESQL_FOLDER": str(self.folder / "postgresql"), **env}
        done = subprocess.run(
            [self.folder / ".ci" / "run"], env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False
        )
        calls = self.calls.read_text(encoding="utf-8").splitlines()
        return done.returncode, done.stdout.rstrip().splitlines()[-1], [call.rstrip() for call in calls]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def complete(machine: Machine) -> Machine:
    subprocess.run(["/bin/bash", "-c", machine.postgres()], check=True)
    return machine


def test_where_everything_is_there_every_lane_runs(complete: Machine) -> None:
    status, last, calls = complete.run()
    assert (status, last) == (0, "CI: every lane ran.")
    assert [call for call in calls if call.startswith("make")] == ["make test", "make e2e N=5 NODE_N=2 RELEASE_N=1"]
    assert not [call for call in calls if call.startswith("apt-get")]


def test_without_docker_ci_fails_and_says_why_at_the_end(complete: Machine) -> None:
    complete.kind(f'echo "{LOCKED_OUT}"; exit 1')
    status, last, calls = complete.run()
    assert status == 1
    assert last == f"CI FAILED: make e2e cannot run here ({LOCKED_OUT}); ALLOW_SKIP_DOCKER=1 would let CI pass without it."
    assert "make test" in calls
    assert not [call for call in calls if call.startswith("make e2e")]


def test_without_docker_ci_passes_when_that_is_allowed_and_says_so_at_the_end(complete: Machine) -> None:
    complete.kind(f'echo "{LOCKED_OUT}"; exit 1')
    status, last, _ = complete.run(ALLOW_SKIP_DOCKER="1")
    assert (status, last) == (0, f"CI: SKIPPED make e2e ({LOCKED_OUT}), as ALLOW_SKIP_DOCKER=1 allows.")
    status, _, _ = complete.run(ALLOW_SKIP_DOCKER="")
    assert status == 1


def test_e2e_that_fails_fails_ci(complete: Machine) -> None:
    complete.program("make", '[ "$1" = test ] || exit 2')
    assert complete.run(ALLOW_SKIP_DOCKER="1")[:2] == (2, "CI FAILED: a lane that ran failed; see above.")


def test_tests_that_fail_fail_ci(complete: Machine) -> None:
    complete.program("make", "exit 2")
    status, last, calls = complete.run()
    assert (status, last) == (2, "CI FAILED: a lane that ran failed; see above.")
    assert not [call for call in calls if call.startswith("make e2e")]


def test_postgresql_is_installed_where_it_is_missing(machine: Machine) -> None:
    machine.program("apt-get", f'[ "$1" = update ] || {{ {machine.postgres()}; }}')
    status, last, calls = machine.run()
    assert (status, last) == (0, "CI: every lane ran.")
    assert [call.split()[1] for call in calls if call.startswith("apt-get")] == ["update", "install"]
    assert calls.index("make test") > max(index for index, call in enumerate(calls) if call.startswith("apt-get"))


def test_without_postgresql_ci_fails_and_says_why_at_the_end(machine: Machine) -> None:
    machine.program("apt-get", "exit 100")
    status, last, _ = machine.run()
    assert status == 1
    assert last.startswith("CI FAILED: the tests with PostgreSQL cannot run here (")
    assert last.endswith("; ALLOW_SKIP_POSTGRES=1 would let CI pass without it.")


def test_without_postgresql_ci_passes_when_that_is_allowed_and_says_so_at_the_end(machine: Machine) -> None:
    machine.program("id", "echo 1000")
    status, last, calls = machine.run(ALLOW_SKIP_POSTGRES="1")
    assert status == 0
    assert last.startswith("CI: SKIPPED the tests with PostgreSQL (")
    assert last.endswith("), as ALLOW_SKIP_POSTGRES=1 allows.")
    assert not [call for call in calls if call.startswith("apt-get")]


def test_a_browser_is_installed_where_it_is_missing(complete: Machine) -> None:
    chromium = complete.programs / "chromium"
    chromium.unlink()
    complete.program("apt-get", f'[ "$1" = update ] || {{ echo > {chromium}; /bin/chmod 755 {chromium}; }}')
    status, last, calls = complete.run()
    assert (status, last) == (0, "CI: every lane ran.")
    assert [call for call in calls if call.startswith("apt-get")] == [
        "apt-get update",
        "apt-get install --yes --no-install-recommends chromium",
    ]


def test_without_a_browser_ci_fails_and_says_why_at_the_end(complete: Machine) -> None:
    (complete.programs / "chromium").unlink()
    complete.program("apt-get", "exit 100")
    why = "the tests in a browser cannot run here (there is no chromium: apt-get install chromium)"
    assert complete.run()[:2] == (1, f"CI FAILED: {why}; ALLOW_SKIP_BROWSER=1 would let CI pass without it.")
    status, last, _ = complete.run(ALLOW_SKIP_BROWSER="1")
    assert (status, last.startswith("CI: SKIPPED the tests in a browser ("), last.endswith("), as ALLOW_SKIP_BROWSER=1 allows.")) == (
        0,
        True,
        True,
    )


def test_what_cannot_be_installed_does_not_keep_the_rest_away(machine: Machine) -> None:
    (machine.programs / "chromium").unlink()
    machine.program("apt-get", f'[ "${{!#}}" != postgresql ] || {{ {machine.postgres()}; exit; }}; exit 100')
    _, last, calls = machine.run()
    assert last.startswith("CI FAILED: the tests in a browser cannot run here (")
    assert "make test" in calls


def test_the_tests_know_that_they_run_in_ci(complete: Machine) -> None:
    complete.program("make", f'echo "CI is $CI" >> {complete.calls}')
    assert "CI is true" in complete.run()[2]


# ------------------------------------------------------------ lanes of pytest

WORKERS = ("-p", "xdist", "-n", "2", "--dist", "loadscope", "--no-loadscope-reorder")
SKIPS = {
    "postgres": 'import pytest\ndef test_it(): pytest.skip("lane PostgreSQL: no initdb here: apt-get install postgresql")\n',
    "browser": 'import pytest\ndef test_it(): pytest.skip("lane browser: no chromium here: apt-get install chromium")\n',
    "root": 'import pytest\n@pytest.mark.skipif(True, reason="lane root: run it as root")\ndef test_it(): pass\n',
    "other": 'import pytest\n@pytest.mark.parametrize("nothing", [])\ndef test_it(nothing): pass\n',
    "module": 'import pytest\npytest.skip("lane PostgreSQL: not here", allow_module_level=True)\n',
    "fixture": 'import pytest\n@pytest.fixture\ndef it(): pytest.skip("lane PostgreSQL: not here")\ndef test_it(it): pass\n',
    "xfail": "import pytest\n@pytest.mark.xfail\ndef test_it(): assert False\n",
}


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Processes that have pytest already, and what the shared conftest.py imports."""
    with forks(tmp_path_factory.mktemp("forked"), "", ("pytest", "asyncio", "xdist.scheduler")) as one:
        yield one


def pytest_says(forked: Forks, folder: Path, which: str, *options: str, **env: str) -> tuple[int, list[str]]:
    """Run a test that is skipped next to one that passes, with what all tests share: exit status and output."""
    shutil.copy(ROOT / "conftest.py", folder / "conftest.py")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (folder / "test_it.py").write_text(SKIPS[which], encoding="utf-8")
    (folder / "test_other.py").write_text("def test_other(): pass\n", encoding="utf-8")
    argv = ["-m", "pytest", "-ra", "-p", "no:cacheprovider", *options, f"--rootdir={folder}", str(folder)]
    ended = forked.run({**env, "PATH": os.defpath, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, *argv, deadline=240.0)
    assert ended.status is not None, "it did not end"
    return ended.status, ended.out.rstrip().splitlines()


@pytest.mark.parametrize("which", ["postgres", "browser", "root", "other", "module", "fixture"])
def test_a_skipped_lane_fails_in_ci(forked: Forks, tmp_path: Path, which: str) -> None:
    status, lines = pytest_says(forked, tmp_path, which, CI="true")
    assert status != 0
    assert "skipped" not in lines[-1]
    assert "in CI nothing is skipped" in "\n".join(lines)


@pytest.mark.parametrize(
    ("which", "variable"),
    [("postgres", "POSTGRES"), ("browser", "BROWSER"), ("root", "ROOT"), ("module", "POSTGRES"), ("fixture", "POSTGRES")],
)
def test_ci_may_skip_a_lane_by_its_variable(forked: Forks, tmp_path: Path, which: str, variable: str) -> None:
    name = {"POSTGRES": "PostgreSQL", "ROOT": "root", "BROWSER": "browser"}[variable]
    status, lines = pytest_says(forked, tmp_path, which, CI="true", **{f"ALLOW_SKIP_{variable}": "1"})
    assert status == 0
    assert lines[-2].startswith(f"SKIPPED LANE {name}, 1 test: "), lines
    other = {"POSTGRES": "ROOT", "ROOT": "POSTGRES", "BROWSER": "ROOT"}[variable]
    assert pytest_says(forked, tmp_path, which, CI="true", **{f"ALLOW_SKIP_{other}": "1"})[0] != 0


def test_elsewhere_a_skipped_lane_is_said_in_the_last_lines(forked: Forks, tmp_path: Path) -> None:
    status, lines = pytest_says(forked, tmp_path, "postgres")
    assert status == 0
    assert lines[-2] == "SKIPPED LANE PostgreSQL, 1 test: no initdb here: apt-get install postgresql"
    assert "1 passed, 1 skipped" in lines[-1]


@pytest.mark.slow
@pytest.mark.parametrize("which", ["postgres", "module"])
def test_several_workers_say_the_same_of_a_skipped_lane(forked: Forks, tmp_path: Path, which: str) -> None:
    status, lines = pytest_says(forked, tmp_path, which, *WORKERS)
    assert status == 0
    assert lines[-2].startswith("SKIPPED LANE PostgreSQL, 1 test: "), lines
    assert "1 passed, 1 skipped" in lines[-1]
    status, lines = pytest_says(forked, tmp_path, which, *WORKERS, CI="true")
    assert status != 0
    assert "in CI nothing is skipped" in "\n".join(lines)


@pytest.mark.slow
def test_what_is_expected_to_fail_is_no_lane(forked: Forks, tmp_path: Path) -> None:
    assert pytest_says(forked, tmp_path, "xfail", CI="true")[0] == 0
