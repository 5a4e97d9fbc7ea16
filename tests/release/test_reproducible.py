"""Two makes of one commit give the same bytes: wheel, sdist, charts, and the files of the images."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.dockerfile import Emulation, stages
from localkube.charts import Helm
from localkube.errors import LocalKubeError
from localkube.release.__main__ import CHECKSUMS, checksums
from localkube.release.packages import charts, distributions, settle
from localkube.release.sbom import LOCKS

from .conftest import EPOCH, ROOT

NOTES = "### Added\n\n- Traces.\n"


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_two_builds_of_wheel_and_sdist_are_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        distributions(ROOT, tmp_path / name, epoch=EPOCH)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert len(digests(tmp_path / "one")) == 2
    (wheel,) = (tmp_path / "one").glob("*.whl")
    times = {info.date_time for info in zipfile.ZipFile(wheel).infolist()}
    assert times == {time.gmtime(EPOCH)[:6]}, "they are of the commit, so that an equal minute proves nothing"


def test_two_packages_of_a_chart_are_the_same(tmp_path: Path, helm: Helm) -> None:
    for name in ("one", "two"):
        charts(ROOT, tmp_path / name, helm, notes=NOTES, epoch=EPOCH)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert len(digests(tmp_path / "one")) == 2
    for path in (tmp_path / "one").iterdir():
        with tarfile.open(path) as archive:
            assert {member.mtime for member in archive} == {EPOCH}


def test_a_settled_archive_keeps_its_files_and_no_times_order_or_owners(tmp_path: Path) -> None:
    def archive(name: str, names: list[str], mtime: int) -> Path:
        path = tmp_path / name
        with tarfile.open(path, "w:gz") as made:
            for one in names:
                info = tarfile.TarInfo(f"chart/{one}")
                info.size, info.mtime, info.uid, info.mode = len(one), mtime, mtime, 0o700 if one == "run" else 0o600
                made.addfile(info, io.BytesIO(one.encode()))
        settle(path, EPOCH)
        return path

    one, two = archive("one", ["b", "run", "Chart.yaml"], 5), archive("two", ["Chart.yaml", "run", "b"], 6)
    assert one.read_bytes() == two.read_bytes()
    with tarfile.open(one) as made:
        assert [(member.name, member.mode) for member in made] == [("chart/Chart.yaml", 0o644), ("chart/b", 0o644), ("chart/run", 0o755)]
    with tarfile.open(one, "w:gz") as made:
        link = tarfile.TarInfo("chart/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        made.addfile(link)
    with pytest.raises(LocalKubeError, match="neither a file nor a folder"):
        settle(one, EPOCH)


def test_checksums_are_read_by_their_program(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"a")
    (tmp_path / "notes.md").write_bytes(b"these are no file of the release")
    checksums(tmp_path)
    checksums(tmp_path)
    assert (tmp_path / CHECKSUMS).read_text(encoding="utf-8") == f"{hashlib.sha256(b'a').hexdigest()}  a.whl\n"


# ---- the images


@pytest.fixture
def place() -> Iterator[Path]:
    """One path for both builds: an environment of Python knows its own."""
    folder = Path(tempfile.mkdtemp(prefix="whatsapp-image-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def tree(folder: Path) -> dict[str, str]:
    """What each file below a folder is, in what a layer keeps of it without its time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return found


def built(place: Path, wheels: Path) -> dict[str, str]:
    """The files of both images, made by the Dockerfile's own commands from nothing."""
    shutil.rmtree(place)
    context = place / "context"
    for name in ("operator/whatsapp_operator", "operator/wabiz_sim"):
        shutil.copytree(ROOT / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
    (context / "hack" / "lock").mkdir(parents=True)
    for lock in LOCKS.values():
        shutil.copy(ROOT / lock, context / "hack" / "lock")
    (context / "build").mkdir()
    (context / "build" / "wheels").symlink_to(wheels)
    python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    dockerfile = stages((ROOT / "operator" / "Dockerfile").read_text(encoding="utf-8"))
    emulation = Emulation(context, place, python)
    for name in ("dependencies", "compiled"):
        emulation.run(dockerfile[name])
    return tree(place / "opt")


@pytest.mark.slow
def test_two_builds_of_the_images_files_are_the_same(place: Path, wheels: Path) -> None:
    one, two = built(place, wheels), built(place, wheels)
    assert len(one) > 1000
    assert sorted(name for name, _ in one.items() ^ two.items()) == []
