"""Writes what is derived: ``python -m localkube.reference``."""

from __future__ import annotations

import sys
from pathlib import Path

from localkube.errors import LocalKubeError

from . import derived


def main(root: Path) -> int:
    """Write each derived file that is stale. Returns the exit status."""
    try:
        for path, text in derived(root).items():
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")
                print(f"wrote {path.relative_to(root)}")
    except LocalKubeError as error:
        print(f"reference: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path.cwd()))
