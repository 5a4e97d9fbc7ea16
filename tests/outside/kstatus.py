"""What kstatus makes of a resource: the words by which Flux, Argo CD, kpt and ``helm --wait`` decide whether to go on waiting.

Written after the generic rules of ``sigs.k8s.io/cli-utils/pkg/kstatus``, and compared with that library itself where its program is there.
It shares no line with the operator.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any


class Verdict(StrEnum):
    """kstatus' answer."""

    CURRENT = "Current"
    """The spec is carried out; there is nothing to wait for."""
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    """It will not come to an end by itself."""
    TERMINATING = "Terminating"


STANDARD = {("Reconciling", "True"): Verdict.IN_PROGRESS, ("Stalled", "True"): Verdict.FAILED}
READY = {"True": Verdict.CURRENT, "False": Verdict.IN_PROGRESS, "Unknown": Verdict.IN_PROGRESS}


def verdict(obj: Mapping[str, Any]) -> Verdict:
    """Return what kstatus says of a custom resource. Of the standard conditions the one that stands first in the list counts."""
    meta, status = obj["metadata"], obj.get("status") or {}
    if meta.get("deletionTimestamp"):
        return Verdict.TERMINATING
    if "generation" in meta and status.get("observedGeneration", meta["generation"]) != meta["generation"]:
        return Verdict.IN_PROGRESS
    conditions = [(one["type"], one["status"]) for one in status.get("conditions") or ()]
    if standard := [STANDARD[one] for one in conditions if one in STANDARD]:
        return standard[0]
    ready = [READY[state] for kind, state in conditions if kind == "Ready" and state in READY]
    return ready[0] if ready else Verdict.CURRENT


def by_library(program: Path, objects: Iterable[Mapping[str, Any]]) -> list[Verdict]:
    """Return what the library says of each of these objects; ``program``: it is built around the library (hack/tools/kstatus)."""
    text = "\n".join(json.dumps(obj) for obj in objects)
    done = subprocess.run([program], input=text, capture_output=True, text=True, timeout=60, check=True)
    return [Verdict(line) for line in done.stdout.splitlines()]
