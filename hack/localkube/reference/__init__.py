"""The reference: pages, diagrams and parts of the CRD, generated from the tables of operator and plugin, so that they stay up to date."""

from __future__ import annotations

import re
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.monitoring import pages

from . import api, diagrams, events, plugin, reasons, rights

CRD = Path("crds") / "whatsappclusters.yaml"
MADE_BY = "made by `make reference`"


def derived(root: Path) -> dict[Path, str]:
    """Return the files with derived content, by path, as they should be. LocalKubeError if one lacks its marks."""
    docs = root / "docs"
    words, architecture, crd = docs / "reasons.md", docs / "architecture.md", root / CRD
    files = {
        words: _with(words, reasons.tables()),
        crd: _with(crd, {"reasons": reasons.crd_description()}),
        architecture: _with(architecture, {"rules": diagrams.rules(), "always": diagrams.always_rules(), "evidence": diagrams.evidence()}),
    }
    whole = {
        "api.md": api.page(files[crd]),
        "events.md": events.page(),
        "rbac.md": rights.page(root),
        "kubectl-commands.md": plugin.page(),
        "metrics.md": pages.metrics_page(),
        "alerts.md": pages.alerts_page(),
    }
    return {**files, **{docs / name: text for name, text in whole.items()}}


def _with(path: Path, blocks: dict[str, str]) -> str:
    """Return the text of a file with each block between its marks, in Markdown or YAML."""
    text = path.read_text(encoding="utf-8")
    for name, block in blocks.items():
        begin, end = (rf"[ ]*(?:<!--|\#) {re.escape(f'{word} {name}')}\b.*\n" for word in ("begin", "end"))
        found = re.search(rf"({begin})(?:.*\n)*?({end})", text)
        if found is None:
            msg = f"{path.name} lacks the marks of what is made for it: put 'begin {name}: {MADE_BY}' and 'end {name}' there, as comments"
            raise LocalKubeError(msg)
        text = text[: found.start()] + found[1] + block + found[2] + text[found.end() :]
    return text
