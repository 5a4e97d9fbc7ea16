"""The sdist and the wheel: built without a network, the same each time, complete, and all programs of the installed wheel start."""

from __future__ import annotations

import email
import subprocess
import sys
import tarfile
import time
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from localkube.release.packages import distributions
from whatsapp_operator import __version__

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EPOCH = 1_900_000_000
TOP = ("pyproject.toml", PROJECT["readme"], *PROJECT["license-files"])
PACKAGES = ("whatsapp_operator", "wabiz_sim", "kubectl_whatsapp")
COMPLETION = "kubectl_complete-whatsapp"
"""Started by kubectl with words to complete; --help is one of them."""


def run(*argv: str | Path, cwd: Path) -> str:
    """What a program writes, without anything of this environment, so that only what is installed is found."""
    done = subprocess.run(argv, cwd=cwd, env={"HOME": str(cwd)}, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, f"{argv}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sdist, and of the wheel that is built from the sdist, as a release makes them."""
    return built(tmp_path_factory.mktemp("dist"))


def built(folder: Path) -> Path:
    """A folder with what is made where nothing of this environment is found but what is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONPATH", raising=False)
        distributions(ROOT, folder, epoch=EPOCH)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> zipfile.ZipFile:
    (path,) = dist.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def installed(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel alone; its dependencies are those of the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder)
    argv = ("-m", "pip", f"--python={folder}/bin/python", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index")
    run(sys.executable, *argv, str(wheel.filename), cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")), encoding="utf-8")
    return folder


def test_the_wheel_has_every_file_of_the_packages_and_no_other(wheel: zipfile.ZipFile) -> None:
    operator = ROOT / "operator"
    files = {path.relative_to(operator).as_posix() for package in PACKAGES for path in (operator / package).rglob("*") if path.is_file()}
    expected = {path for path in files if "__pycache__" not in path}
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == expected
    assert {f"{package}/py.typed" for package in PACKAGES} <= expected


def test_the_sdist_has_what_it_is_built_from(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*TOP, *(f"operator/{package}/py.typed" for package in PACKAGES)} <= names


def test_two_builds_are_the_same(dist: Path, wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    first, second = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in (dist, built(tmp_path / "again")))
    assert len(first) == 2
    assert [name for name in first.keys() | second.keys() if first.get(name) != second.get(name)] == []
    times = {info.date_time for info in wheel.infolist()}
    assert times == {time.gmtime(EPOCH)[:6]}, "they are of the commit, so that an equal minute proves nothing"


def test_the_wheel_says_what_it_is_and_needs(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    about = email.message_from_bytes(wheel.read(name))
    assert (about["Name"], about["Version"], about["License-Expression"]) == (PROJECT["name"], __version__, PROJECT["license"])
    needed = {line.replace(" ", "") for line in about.get_all("Requires-Dist", []) if "extra ==" not in line}
    assert needed == {line.replace(" ", "") for line in PROJECT["dependencies"]}


@pytest.mark.parametrize("script", [script for script in PROJECT["scripts"] if script != COMPLETION])
def test_each_program_of_the_installed_wheel_starts(installed: Path, tmp_path: Path, script: str) -> None:
    usage = run(installed / "bin" / script, "--help", cwd=tmp_path).replace("Usage: kubectl whatsapp", "usage: kubectl-whatsapp")
    assert usage.startswith(f"usage: {script}")
    assert run(installed / "bin" / script, "--version", cwd=tmp_path) == f"{script} {__version__}\n"
    where = "import whatsapp_operator, wabiz_sim; print(whatsapp_operator.__file__, wabiz_sim.__file__)"
    assert all(path.startswith(str(installed)) for path in run(installed / "bin" / "python", "-c", where, cwd=tmp_path).split())


def test_the_completion_of_the_installed_wheel_proposes_commands(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "bin" / COMPLETION, "stat", cwd=tmp_path) == "status\n:4\n"
