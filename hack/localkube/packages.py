"""``python -m localkube.packages`` takes the arguments of `pip install` and does the same with uv, in a tenth of the CPU time.

uv does not read pip's configuration, so this module passes it on: which index, which CA. If uv cannot do something, pip does it.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from localkube.errors import LocalKubeError, guarded
from localkube.run import output

SECONDS = 900.0
UV = Path(sys.prefix) / "bin" / "uv"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
OPTIONS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
}
"""What pip is configured with, by the variable that says it to uv."""
OWN = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}
"""The older names of variables; one that is set is obeyed as well."""
WEIGHT = ("global.", "install.", ":env:.")
"""Where pip finds a setting; the last that has it counts."""


def main(argv: Sequence[str]) -> int:
    """Install packages, see `install`. Returns the exit status."""
    install(argv)
    return 0


def install(argv: Sequence[str], *, python: Path | None = None) -> None:
    """Install packages into the environment of ``python``, else into this one. LocalKubeError, with pip's words, if it fails.

    ``argv``: options that uv and pip both know. Nothing is compiled: Python does that with what it imports.
    """
    environment = str(python or sys.executable)
    try:
        output([str(UV), "pip", "install", "--quiet", f"--python={environment}", *argv], env=as_pip(), timeout=SECONDS)
    except LocalKubeError as error:
        print(f"pip installs the packages, which takes longer: {error}", file=sys.stderr)  # rich, which shows progress, may be one of them
        output([*PIP, f"--python={environment}", "install", "--quiet", "--no-compile", *argv], timeout=SECONDS)


def as_pip() -> dict[str, str]:
    """This process's environment, with the variables that give uv pip's configuration. LocalKubeError if pip does not print it."""
    return {**os.environ, **for_uv(output([*PIP, "config", "list"]), os.environ)}


def for_uv(listed: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that tell uv what `pip config list` lists; what ``environ`` tells uv itself stays as it is."""
    found = re.findall(r"^(global\.|install\.|:env:\.)([\w-]+)=(.*)$", listed, flags=re.MULTILINE)
    settings = {name: ast.literal_eval(value).split() for _, name, value in sorted(found, key=lambda one: WEIGHT.index(one[0]))}
    given = {OPTIONS[name]: ("," if name == "find-links" else " ").join(words) for name, words in settings.items() if name in OPTIONS}
    # As pip does: behind a proxy that ends TLS only the system knows its authority; every index may have what another lacks.
    given |= {"UV_SYSTEM_CERTS": "true", "UV_INDEX_STRATEGY": "unsafe-best-match"}
    return {name: value for name, value in given.items() if name not in environ and OWN.get(name, name) not in environ}


if __name__ == "__main__":
    sys.exit(guarded("localkube.packages", lambda: main(sys.argv[1:])))
