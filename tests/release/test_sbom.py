"""The SBOM of each image: valid, the packages of its lock and no other, the same each time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from localkube.errors import LocalKubeError
from localkube.release import sbom as module
from localkube.release.sbom import LOCKS, described, listed, locked, sbom

from .conftest import EPOCH, ROOT


@pytest.fixture(scope="module", params=sorted(LOCKS))
def made(request: pytest.FixtureRequest, wheels: Path) -> tuple[str, dict[str, Any]]:
    """What ``sbom`` returns, which is valid: that it rejects others is tested below. To validate takes long, so it is done once."""
    return request.param, sbom(ROOT, request.param, version="1.2.3", epoch=EPOCH, pip=("--no-index", f"--find-links={wheels}"))


def test_it_is_valid_and_says_of_what_it_is(made: tuple[str, dict[str, Any]]) -> None:
    image, bom = made
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    about = bom["metadata"]["component"]
    assert (about["type"], about["name"], about["version"]) == ("container", f"whatsapp-operator/{image}", "1.2.3")
    assert bom["metadata"]["timestamp"].startswith("2030-03-17")


def test_it_has_the_packages_of_the_lock_with_their_licences(made: tuple[str, dict[str, Any]]) -> None:
    image, bom = made
    packages = locked(ROOT / LOCKS[image])
    assert len(packages) > 10
    assert listed(bom) == packages
    for one in bom["components"]:
        assert one["purl"].startswith(f"pkg:pypi/{one['name'].lower().replace('_', '-')}@{one['version']}"), one["name"]
    silent = {one["name"] for one in bom["components"] if not one.get("licenses")}
    assert silent <= {"protobuf"}, "its wheel names no licence; every other does"


def test_it_says_what_needs_what(made: tuple[str, dict[str, Any]]) -> None:
    _, bom = made
    needs = {one["ref"]: set(one.get("dependsOn", ())) for one in bom["dependencies"]}
    (aiohttp,) = (ref for ref in needs if ref.startswith("aiohttp=="))
    assert any(ref.startswith("yarl==") for ref in needs[aiohttp])
    assert needs[bom["metadata"]["component"]["bom-ref"]] == {one["bom-ref"] for one in bom["components"]}


def test_it_is_the_same_each_time(made: tuple[str, dict[str, Any]], wheels: Path) -> None:
    image, bom = made
    again = described(ROOT, image, version="1.2.3", epoch=EPOCH, pip=("--no-index", f"--find-links={wheels}"))
    assert json.dumps(again, sort_keys=True) == json.dumps(bom, sort_keys=True)


def test_one_that_lacks_a_package_or_is_not_valid_is_none(made: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    image, bom = made
    # to validate addresses takes seconds, and there are two hundred
    bare = [{key: value for key, value in one.items() if key != "externalReferences"} for one in bom["components"]]
    wrong = {
        "does not have the packages": {"components": bare[1:]},
        "no valid CycloneDX.*required property": {"components": [{"name": "a"}]},
        "no valid CycloneDX.*citations": {"components": bare, "citations": []},  # of 1.7
        "no valid CycloneDX.*iri-reference": {"components": [{**bare[0], "externalReferences": [{"type": "other", "url": "no address"}]}]},
    }
    for said, parts in wrong.items():
        monkeypatch.setattr(module, "described", lambda *_, bom={**bom, "metadata": {}, **parts}, **__: bom)
        with pytest.raises(LocalKubeError, match=f"(?s){said}"):
            sbom(ROOT, image, version="1.2.3", epoch=EPOCH)
