"""Release notes are cut from the changelog; a tag that is not of one version with everything else is no release."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from localkube.errors import LocalKubeError
from localkube.release.__main__ import check_tag
from localkube.release.notes import MAX_CHANGE_LENGTH, changes, notes
from whatsapp_operator import __version__

ROOT = Path(__file__).resolve().parents[2]
CHANGELOG = """# Changelog

## [Unreleased]

### Added

- Not yet.

## [1.1.0] - 2030-02-01

### Added

- **Traces.** A [page](docs/a.md) for `them`.
  More of it.

### Upgrade

- Apply the CRD.

## 1.0.0 - 2030-01-01

- The first.

## [0.9.0] - 2029-01-01

[Unreleased]: https://example.com/a...b
[1.1.0]: https://example.com/b
"""


def test_the_section_of_a_version() -> None:
    assert notes(CHANGELOG, "1.0.0") == "- The first.\n"
    assert notes(CHANGELOG, "1.1.0").startswith("### Added\n\n- **Traces.**")
    assert notes(CHANGELOG, "1.1.0").endswith("- Apply the CRD.\n")
    assert notes(CHANGELOG, "Unreleased") == "### Added\n\n- Not yet.\n"


@pytest.mark.parametrize("version", ["1.0", "1.1.0-rc1", "2.0.0", "0.9.0", "1.1"])
def test_a_version_without_notes(version: str) -> None:
    with pytest.raises(LocalKubeError, match=f"no notes of {version}"):
        notes(CHANGELOG, version)


def test_changes_for_artifact_hub() -> None:
    assert yaml.safe_load(changes(notes(CHANGELOG, "1.1.0"))) == [
        {"kind": "added", "description": "Traces. A page for them."},
        {"kind": "changed", "description": "Apply the CRD."},
    ]
    (long,) = yaml.safe_load(changes("- " + "word " * 100))
    assert len(long["description"]) <= MAX_CHANGE_LENGTH


def test_the_changelog_has_notes_of_what_comes_next() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert yaml.safe_load(changes(notes(text, "Unreleased" if "Unreleased" in text else __version__)))


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A repository whose changelog has this version."""
    shutil.copytree(ROOT / "charts", tmp_path / "charts")
    (tmp_path / "CHANGELOG.md").write_text(f"## [{__version__}] - 2030-01-01\n\n- All.\n", encoding="utf-8")
    return tmp_path


def test_a_tag_is_of_one_version_with_packages_charts_and_notes(released: Path) -> None:
    check_tag(released, f"v{__version__}")
    for tag in ("v9.9.9", __version__):
        with pytest.raises(LocalKubeError, match=f"the tag is {tag}, but the package is {__version__}"):
            check_tag(released, tag)
    chart = released / "charts" / "whatsapp-cluster" / "Chart.yaml"
    chart.write_text(chart.read_text(encoding="utf-8").replace(f"appVersion: {__version__}", "appVersion: 9.9.9"), encoding="utf-8")
    with pytest.raises(LocalKubeError, match=r"but the images of chart whatsapp-cluster is 9\.9\.9"):
        check_tag(released, f"v{__version__}")


def test_a_tag_without_notes_is_no_release(released: Path) -> None:
    (released / "CHANGELOG.md").write_text("## [Unreleased]\n\n- All.\n", encoding="utf-8")
    with pytest.raises(LocalKubeError, match="no notes"):
        check_tag(released, f"v{__version__}")
