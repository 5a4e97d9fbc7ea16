"""The command ``hack/figures``: copies measured figures to docs/figures, and writes them from there, their only source, into the text.

A page has places for figures, each between two marks: ``<!-- figures: NAME -->`` and ``<!-- end of figures -->``. Everything between
them is generated from one file, and so from one run. NAME is that of the file, or ``FILE-VIEW`` if a file is shown in several ways.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from localkube import LocalKubeError, Obj
from localkube.blocks import BLOCKS
from localkube.files import rewrite, stale, write_json
from localkube.scenarios.demo import picture

FOLDER = Path("docs/figures")
SOURCES = {
    "demo": ("build/demo.json", "make demo"),
    "bench": ("build/bench.json", "make bench"),
    "scale": ("build/bench-scale.json", "make bench SCALE=1000"),
    "plugin": ("build/bench-plugin.json", "make bench PLUGIN=1"),
    "chaos": ("build/chaos.json", "make chaos"),
    "e2e": ("build/e2e.json", "make e2e"),
}
"""Per file of figures: what the program writes, and the command that runs it."""
PAGES = ("README.md", "docs/benchmarks.md", "docs/end-to-end.md", "docs/failure-modes.md", "docs/kubectl.md")
PLACE = re.compile(r"(<!-- figures: (?P<name>[a-z0-9-]+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
PICTURE = FOLDER / "demo.svg"
"""Drawn from the timeline of the demo that is kept."""
LEFT_OUT = frozenset({"samples", "details"})
"""Single measurements: they stay where they were made."""


def published(figures: Any) -> Any:
    """Figures as they are kept: without single measurements, at any depth."""
    if isinstance(figures, Mapping):
        return {name: published(value) for name, value in figures.items() if name not in LEFT_OUT}
    return [published(value) for value in figures] if isinstance(figures, list) else figures


def publish(root: Path, name: str) -> str:
    """Take over what a program last measured; returns a sentence. LocalKubeError if there is nothing, or it names no commit."""
    made, command = SOURCES[name]
    try:
        figures = json.loads((root / made).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LocalKubeError(f"there is no {made}: '{command}' writes it") from None
    commit = str((figures.get("run") or {}).get("commit") or "unknown")
    if commit == "unknown":
        raise LocalKubeError(f"{made} does not say of which commit it is: measure again with '{command}'")
    write_json(root / FOLDER / f"{name}.json", published(figures))
    return f"{FOLDER / name}.json: measured at commit {commit}"


def filled(text: str, figures: Callable[[str], Obj | None]) -> str:
    """A page with all its places filled; ``figures``: the content of a file of figures, None if there is none. LocalKubeError."""

    def fill(place: re.Match[str]) -> str:
        name = place["name"]
        if name not in BLOCKS:
            raise LocalKubeError(f"there is no way to show {name}; there are {', '.join(BLOCKS)}")
        file = name.partition("-")[0]
        found = figures(file)
        shown = BLOCKS[name](found) if found else f"*No run is kept here yet: `{SOURCES[file][1]}`, then `make figures TAKE={file}`.*\n"
        return f"{place[1]}\n{shown}\n{place[3]}"

    return PLACE.sub(fill, text)


def kept(root: Path, name: str) -> Obj | None:
    """A file of figures, None if there is none."""
    path = root / FOLDER / f"{name}.json"
    content: Obj | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return content


def derived(root: Path) -> dict[Path, str]:
    """The pages, and the picture, as the files of figures have it. LocalKubeError."""
    texts = {root / page: filled((root / page).read_text(encoding="utf-8"), lambda name: kept(root, name)) for page in PAGES}
    timeline = (kept(root, "demo") or {}).get("timeline")
    return texts | ({root / PICTURE: picture.svg(timeline)} if timeline else {})


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run the command; ``root`` is the repository. Returns the exit status. LocalKubeError."""
    parser = argparse.ArgumentParser(prog="hack/figures", description="Puts what was measured into docs/figures and into the text.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"take these over from build first: {', '.join(SOURCES)}")
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a page says anything else than docs/figures")
    options = parser.parse_args(argv)
    if unknown := sorted(set(options.names) - set(SOURCES)):
        parser.error(f"there are no figures {', '.join(unknown)}; there are {', '.join(SOURCES)}")
    if options.check and options.names:
        parser.error("--check changes nothing, so it takes no NAME")
    for name in options.names:
        print(publish(root, name))
    if not options.check:
        rewrite(derived(root), root)
    elif old := stale(derived(root)):
        raise LocalKubeError(
            f"{', '.join(str(path.relative_to(root)) for path in old)}: not what docs/figures has; 'make figures' writes it"
        )
    return 0
