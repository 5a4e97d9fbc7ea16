"""The command ``python -m localkube.release``."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from localkube.charts import CLUSTER, OPERATOR, Helm
from localkube.errors import LocalKubeError, guarded
from localkube.programs.binaries import provide
from localkube.programs.versions import chart_programs
from localkube.release.notes import notes
from localkube.release.packages import charts, distributions, manifest
from localkube.release.sbom import LOCKS, sbom
from localkube.run import output
from whatsapp_operator import __version__

CHECKSUMS = "SHA256SUMS"
VERIFICATION = Path("docs") / "verify.md"
BEGIN, END = "<!-- begin verification: the release workflow runs it -->", "<!-- end verification -->"


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run the command; ``root`` is the repository. Returns the exit status. LocalKubeError says what cannot be released, and why."""
    parser = argparse.ArgumentParser(prog="python -m localkube.release", description="Make what a release consists of.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tag", help="check that a tag is that of this version").add_argument("tag", help="such as v1.2.3")
    commands.add_parser("verification", help=f"print the commands of {VERIFICATION}")
    make = commands.add_parser("files", help="make all files of a release in a folder")
    make.add_argument("folder", type=Path)
    make.add_argument("--registry", default="", help="where the images are, such as registry.example.com/owner")
    make.add_argument("--unreleased", action="store_true", help="take the notes that have no version yet")
    commands.add_parser("checksums", help=f"write {CHECKSUMS} of a folder").add_argument("folder", type=Path)
    options = parser.parse_args(argv)
    if options.command == "tag":
        check_tag(root, options.tag)
    elif options.command == "verification":
        print(verification(root), end="")
    elif options.command == "checksums":
        checksums(options.folder)
    else:
        files(root, options.folder, registry=options.registry, unreleased=options.unreleased)
    return 0


def check_tag(root: Path, tag: str) -> None:
    """LocalKubeError unless ``tag``, the package, both charts and the changelog are of one version."""
    found = {"the package": __version__}
    for chart in (OPERATOR, CLUSTER):
        meta = yaml.safe_load((root / "charts" / chart / "Chart.yaml").read_text(encoding="utf-8"))
        found |= {f"chart {chart}": meta["version"], f"the images of chart {chart}": meta["appVersion"]}
    if wrong := [f"{what} is {version}" for what, version in found.items() if f"v{version}" != tag]:
        raise LocalKubeError(f"the tag is {tag}, but {', '.join(wrong)}")
    notes((root / "CHANGELOG.md").read_text(encoding="utf-8"), tag.removeprefix("v"))


def verification(root: Path) -> str:
    """Return the commands between the marks of the page for users, as they stand there. LocalKubeError if there are none."""
    text = (root / VERIFICATION).read_text(encoding="utf-8")
    block = re.search(rf"{re.escape(BEGIN)}\s*```bash\n(.*?)```\s*{re.escape(END)}", text, flags=re.DOTALL)
    if block is None:
        raise LocalKubeError(f"{VERIFICATION} has no block of bash between {BEGIN!r} and {END!r}")
    return block[1]


def files(root: Path, folder: Path, *, registry: str = "", unreleased: bool = False) -> None:
    """Make everything in ``folder``, which must be empty or not there."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise LocalKubeError(f"{folder} is not empty: remove what is in it")
    epoch = commit_time(root)
    text = notes((root / "CHANGELOG.md").read_text(encoding="utf-8"), "Unreleased" if unreleased else __version__)
    (folder / "notes.md").write_text(text, encoding="utf-8")
    distributions(root, folder, epoch=epoch)
    helm = Helm(provide(os.environ, programs=chart_programs())["helm"], Path(tempfile.gettempdir()))
    operator, _ = charts(root, folder, helm, notes=text, epoch=epoch, registry=registry)
    (folder / f"{OPERATOR}.yaml").write_text(manifest(operator, helm), encoding="utf-8")
    for image in LOCKS:
        bom = sbom(root, image, version=__version__, epoch=epoch)
        (folder / f"{image}.cdx.json").write_text(json.dumps(bom, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    checksums(folder)
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size:>9} {path.name}")


def commit_time(root: Path) -> int:
    """Return SOURCE_DATE_EPOCH, or the time of the commit that is checked out, in seconds since 1970."""
    return int(os.environ.get("SOURCE_DATE_EPOCH") or output(["git", "-C", str(root), "log", "-1", "--pretty=%ct"]))


def checksums(folder: Path) -> None:
    """Write the checksums of all files in ``folder``, as ``sha256sum --check`` reads them."""
    paths = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in {CHECKSUMS, "notes.md"})
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in paths]
    (folder / CHECKSUMS).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(guarded("localkube.release", lambda: main(sys.argv[1:], root=Path.cwd())))
