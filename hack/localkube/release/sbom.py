"""The list of an image's Python packages (SBOM), as CycloneDX."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from localkube.errors import LocalKubeError
from localkube.packages import install
from localkube.run import output

LOCKS = {"operator": "hack/lock/run.txt", "wabiz-sim": "hack/lock/simulator.txt"}
"""By the name of the image."""
SECONDS = 600.0
Bom = dict[str, Any]


def sbom(root: Path, image: str, *, version: str, epoch: int, pip: Sequence[str] = ()) -> Bom:
    """Return the SBOM of an image: the packages of its lock, installed here by hash, with licences and what needs what.

    ``epoch``: the time of the commit, in seconds since 1970. ``pip``: more arguments, such as where the wheels are.
    LocalKubeError if they cannot be installed or the result is not valid.
    """
    bom = described(root, image, version=version, epoch=epoch, pip=pip)
    _check(bom, root / LOCKS[image])
    return bom


def described(root: Path, image: str, *, version: str, epoch: int, pip: Sequence[str] = ()) -> Bom:
    """Return the same, but not checked yet. LocalKubeError if the packages cannot be installed."""
    lock = root / LOCKS[image]
    with tempfile.TemporaryDirectory(prefix="sbom-") as folder:
        python = f"{folder}/bin/python"
        output([sys.executable, "-m", "venv", "--without-pip", folder], timeout=SECONDS)
        install(["--only-binary=:all:", "--no-deps", "--require-hashes", *pip, "-r", str(lock)], python=Path(python))
        # not validated here: the whole is, once it is complete
        argv = [sys.executable, "-m", "cyclonedx_py", "environment", "--no-validate", "--output-reproducible", "--sv=1.6", "--of=JSON"]
        bom: Bom = json.loads(output([*argv, python], timeout=SECONDS, env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}))
    ref = f"whatsapp-operator/{image}@{version}"
    bom["metadata"]["component"] = {"type": "container", "name": f"whatsapp-operator/{image}", "version": version, "bom-ref": ref}
    dependencies = [one for one in bom.get("dependencies", ()) if one["ref"] != ref]
    bom["dependencies"] = [*dependencies, {"ref": ref, "dependsOn": sorted(one["bom-ref"] for one in bom["components"])}]
    return bom


def locked(lock: Path) -> dict[str, str]:
    """Return the versions that a lock pins, by the name of the package."""
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE))


def listed(bom: Bom) -> dict[str, str]:
    """Return the versions in an SBOM, by the name of the package as locks spell it."""
    return {re.sub(r"[-_.]+", "-", one["name"]).lower(): one["version"] for one in bom["components"]}


def _check(bom: Bom, lock: Path) -> None:
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415  only here: the validator takes two seconds to load
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    if fault := JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom)):
        raise LocalKubeError(f"the SBOM of {lock.name} is no valid CycloneDX: {fault}")
    if listed(bom) != locked(lock):
        raise LocalKubeError(f"the SBOM does not have the packages of {lock.name}: {sorted(listed(bom).items() ^ locked(lock).items())}")
