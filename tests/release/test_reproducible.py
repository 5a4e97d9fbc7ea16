"""Two makes of one commit give the same bytes: charts here; tests/images does it for wheel, sdist and the files of the images."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from localkube.charts import Helm
from localkube.errors import LocalKubeError
from localkube.release.__main__ import CHECKSUMS, checksums
from localkube.release.packages import charts, settle

from .conftest import EPOCH, ROOT

NOTES = "### Added\n\n- Traces.\n"


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


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
