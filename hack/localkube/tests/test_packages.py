"""Packages are installed by uv as pip is configured, and by pip where uv cannot; in both cases by hash."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from localkube import packages
from localkube.errors import LocalKubeError

WHEEL = "example_thing-1.0-py3-none-any.whl"
CONFIGURED = """\
:env:.extra-index-url='https://b.example/simple https://c.example/simple'
:env:.find-links='/a /b'
global.index-url='https://a.example/simple'
global.trusted-host='\\na.example\\nb.example'
global.timeout='15'
install.index-url='https://i.example/simple'
download.index-url='https://d.example/simple'
"""


def wheel() -> bytes:
    about, stream = "example_thing-1.0.dist-info", io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("example_thing.py", "")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: example-thing\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return stream.getvalue()


class Index:
    """An index on loopback with one package, and who asked it."""

    def __init__(self) -> None:
        self.file, self.agents = wheel(), set[str]()
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.agents.add(self.headers.get("User-Agent", "").partition("/")[0])
                page = f'<a href="/{WHEEL}">{WHEEL}</a>'.encode()
                body, kind = (index.file, "application/zip") if self.path.endswith(".whl") else (page, "text/html")
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/simple"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An index that nothing but a file of pip's names."""
    found = Index()
    for name in [one for one in os.environ if one.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {found.url}\n", encoding="utf-8")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    thread = threading.Thread(target=found.server.serve_forever, args=(0.05,))
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def request(folder: Path, file: bytes) -> list[str]:
    """What is installed: the package with the hash of ``file``."""
    (folder / "lock.txt").write_text(f"example-thing==1.0 --hash=sha256:{hashlib.sha256(file).hexdigest()}\n", encoding="utf-8")
    return ["--target", str(folder / "to"), "--require-hashes", "-r", str(folder / "lock.txt")]


def test_uv_asks_the_index_that_pip_is_configured_with(index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packages.install(request(tmp_path, index.file))
    assert (tmp_path / "to" / "example_thing.py").exists()
    assert (index.agents, capsys.readouterr().err) == ({"uv"}, "")


def test_pip_does_what_uv_cannot(index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "UV", tmp_path / "uv")
    packages.install(request(tmp_path, index.file))
    assert (tmp_path / "to" / "example_thing.py").exists()
    assert index.agents == {"pip"}
    assert "uv cannot be run: No such file or directory" in capsys.readouterr().err


def test_another_file_is_installed_by_neither(index: Index, tmp_path: Path) -> None:
    argv = request(tmp_path, index.file)
    index.file += b"more"
    with pytest.raises(LocalKubeError, match=r"(?i)hash"):
        packages.install(argv)
    assert index.agents == {"uv", "pip"}
    assert not (tmp_path / "to" / "example_thing.py").exists()


def test_uv_is_given_what_pip_is_configured_with_unless_it_has_its_own() -> None:
    always = {"UV_SYSTEM_CERTS": "true", "UV_INDEX_STRATEGY": "unsafe-best-match"}
    found = {
        "UV_DEFAULT_INDEX": "https://i.example/simple",
        "UV_INDEX": "https://b.example/simple https://c.example/simple",
        "UV_FIND_LINKS": "/a,/b",
        "UV_INSECURE_HOST": "a.example b.example",
    }
    assert packages.for_uv(CONFIGURED, {}) == {**found, **always}
    own = {"UV_INDEX_URL": "https://o.example/simple", "UV_INDEX": "https://e.example/simple", "UV_SYSTEM_CERTS": "false"}
    rest = ("UV_FIND_LINKS", "UV_INSECURE_HOST")
    assert packages.for_uv(CONFIGURED, own) == {**{name: found[name] for name in rest}, "UV_INDEX_STRATEGY": "unsafe-best-match"}
    assert packages.for_uv("", {}) == always
