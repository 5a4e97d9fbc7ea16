"""A Dockerfile's own commands, run without containers, in a folder that stands for the root; for what operator/Dockerfile uses."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

STEP_SECONDS = 900.0


@dataclass
class Stage:
    """One ``FROM``: what follows it, and what it has set so far."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def stages(text: str) -> dict[str, Stage]:
    """The stages by name, in order; comments left out, lines that end in a backslash joined."""
    joined = re.sub(r"\\\n", " ", "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")))
    found: dict[str, Stage] = {}
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = found[name] = Stage(name, base)
        elif found:
            stage.steps.append((word, rest.strip()))
    return found


@dataclass
class Emulation:
    """Runs stages of a Dockerfile, all of them in the folder ``root``: paths below /opt and /build are moved into it."""

    context: Path
    root: Path
    python: Path
    """Stands for the base image's python3."""

    def run(self, stage: Stage) -> None:
        """Run the COPY and RUN of a stage that makes files; AssertionError with what was said if a step fails."""
        where = self.root
        for word, rest in stage.steps:
            if word == "WORKDIR":
                where = Path(self.moved(rest))
                where.mkdir(parents=True, exist_ok=True)
            elif word == "COPY":
                self._copy(rest.split())
            elif word == "RUN":
                self._shell(self.moved(rest), where)

    def moved(self, text: str) -> str:
        """``text`` with the paths of the image where they lie here."""
        return re.sub(r"(?<![\w./])/(opt|build)\b", rf"{self.root}/\1", text)

    def environment(self, *chain: Stage) -> dict[str, str]:
        """What ENV of these stages sets."""
        pairs = [pair for stage in chain for word, rest in stage.steps if word == "ENV" for pair in rest.split()]
        return {name: self.moved(value) for name, _, value in (pair.partition("=") for pair in pairs)}

    def _copy(self, words: list[str]) -> None:
        *sources, target = words
        matches = [path for source in sources for path in sorted(self.context.glob(source))]
        assert matches, f"COPY {words}: nothing matches"
        goal = Path(self.moved(target))
        for path in matches:
            if path.is_dir():
                shutil.copytree(path, goal, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                goal.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, goal)

    def _shell(self, command: str, where: Path) -> None:
        (self.root / "bin").mkdir(exist_ok=True)
        python = self.root / "bin" / "python3"
        if not python.exists():
            python.symlink_to(self.python)
        # an index that answers nobody: what is not in the folder of wheels is not had
        env = {
            "PATH": f"{python.parent}:{os.defpath}",
            "HOME": str(self.root),
            "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
            "PIP_RETRIES": "0",
        }
        done = subprocess.run(
            ["/bin/sh", "-ec", command], cwd=where, env=env, capture_output=True, text=True, timeout=STEP_SECONDS, check=False
        )
        assert done.returncode == 0, f"RUN {command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"


def entrypoint(stage: Stage) -> list[str]:
    """The stage's ENTRYPOINT."""
    words: list[str] = json.loads(next(rest for word, rest in stage.steps if word == "ENTRYPOINT"))
    return words
