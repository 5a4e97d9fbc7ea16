"""Every console of the documents is run as it stands: with kubectl and Helm, on a real API server, with the operator and hollow nodes.

A section of a page is a session in a namespace of its own: its commands run in their order, and what they print is compared where the page
shows it. A command that cannot run here stands in ``ELSEWHERE``, with the reason and with what runs it instead.
"""

from __future__ import annotations

import doctest
import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from localkube import kubeconfig
from localkube.plane.controlplane import ControlPlane
from localkube.plane.operators import NAME, NAMESPACE, Operators
from localkube.plane.processes import start, stop, wait_until
from localkube.programs.binaries import Binaries, provide
from localkube.programs.versions import chart_programs, pinned_programs
from whatsapp_operator import __version__ as VERSION  # noqa: N812  # it names the images

from .documented import ROOT, Block, Command, all_blocks, blocks
from .environment import LONG

pytestmark = pytest.mark.integration

COMMAND_SECONDS = 120
REPLACED = {
    "REGISTRY": "registry.example",
    "charts/whatsapp-cluster": "charts/whatsapp-cluster --set simulator.restartSeconds=1",
}
"""What a reader must replace, and a restart that would take the vendor's 45 s; by what it is replaced here."""
LANGUAGES = {"console", "yaml", "text", "mermaid", "promql"}
"""Consoles run here, YAML is applied in test_examples.py, `make docs` parses diagrams, promtool has the expressions of alerts."""


class NotRunHere(NamedTuple):
    """Why a command does not run here, and what runs it: a target of the Makefile, a file, or a test as `file::name`."""

    why: str
    runs: str


FENCE = "tests/unit/sim/test_fence.py::test_the_fence_can_be_reset_after_a_restore"
IMAGES = "tests/images/test_dockerfile.py::test_the_operator_starts_and_says_what_is_missing"
HELM_TEST = "tests/integration/test_rbac.py::test_what_is_granted_is_used_and_what_is_used_is_granted"
WITHOUT_HELM = "tests/integration/test_charts.py::test_the_operator_without_helm"
NO_FILE = "the file is of a release"
NO_PODS = "hollow nodes run no other images than the simulator's: the scripts of these pods run as processes"
NO_STREAMS = "hollow nodes forward no ports: the request itself is tested"
NO_DOCKER = "it needs Docker"
MINUTES = "it takes minutes"
ITSELF = "it runs the tests, this one among them"

ELSEWHERE = {
    "make demo": NotRunHere("it is a cluster of its own, for minutes", "hack/localkube/tests/test_demo.py"),
    "make test": NotRunHere(ITSELF, ".ci/run"),
    "make setup": NotRunHere("it made what this test runs in", "make test"),
    "make quick": NotRunHere(ITSELF, "make test"),
    "make check": NotRunHere("`make test` begins with it", "make test"),
    "make bench": NotRunHere(MINUTES, "hack/localkube/tests/test_bench.py"),
    "make bench PLUGIN=1": NotRunHere(MINUTES, "hack/localkube/tests/test_bench_plugin.py"),
    'make figures TAKE="bench"': NotRunHere("it changes the documents", "hack/localkube/tests/test_pages.py"),
    "make e2e": NotRunHere(NO_DOCKER, ".ci/run"),
    "make e2e ONLY=drain N=5 KEEP=1": NotRunHere(NO_DOCKER, ".ci/run"),
    "hack/e2e --here --only node-paused --node-n 1": NotRunHere(NO_DOCKER, "make e2e"),
    "make kind": NotRunHere(NO_DOCKER, "make e2e"),
    'make kind && eval "$(hack/kind-offline up)"': NotRunHere(NO_DOCKER, "make e2e"),
    'eval "$(hack/kind-offline up)"': NotRunHere(NO_DOCKER, "make e2e"),
    "make kind-down": NotRunHere(NO_DOCKER, "make e2e"),
    "make wheels": NotRunHere("it downloads all wheels", "make e2e"),
    f"docker build -f operator/Dockerfile --target operator  -t REGISTRY/operator:{VERSION} .": NotRunHere(NO_DOCKER, IMAGES),
    f"docker build -f operator/Dockerfile --target simulator -t REGISTRY/wabiz-sim:{VERSION} .": NotRunHere(NO_DOCKER, IMAGES),
    f"docker build --network=none -f operator/Dockerfile --target operator -t REGISTRY/operator:{VERSION} .": NotRunHere(NO_DOCKER, IMAGES),
    "make release-files UNRELEASED=1 REGISTRY=registry.example.com/owner": NotRunHere(MINUTES, "tests/release/test_charts.py"),
    "kubectl apply --server-side -f build/release/whatsapp-operator.yaml": NotRunHere(NO_FILE, WITHOUT_HELM),
    "kubectl delete -f build/release/whatsapp-operator.yaml --selector app.kubernetes.io/instance=whatsapp-operator": NotRunHere(
        NO_FILE, WITHOUT_HELM
    ),
    "helm test acme": NotRunHere(NO_PODS, HELM_TEST),
    "helm test whatsapp-operator -n whatsapp-operator-system": NotRunHere(NO_PODS, HELM_TEST),
    "helm test whatsapp-operator --namespace whatsapp-operator-system": NotRunHere(NO_PODS, HELM_TEST),
    "kubectl port-forward acme-simulator-0 8080 &": NotRunHere(NO_STREAMS, FENCE),
    "curl --request POST http://localhost:8080/control/reset-fence": NotRunHere(NO_STREAMS, FENCE),
}

PAGES = {
    "docs/dashboard.md": NotRunHere("its commands serve until Ctrl-C", "tests/integration/test_dashboard.py"),
    "docs/kubectl.md": NotRunHere("its outputs are of an outage", "tests/unit/kubectl/test_commands.py"),
    "docs/verify.md": NotRunHere("it needs a release", "tests/release/test_workflows.py"),
}
"""Whole pages that do not run here."""

OPERATOR = f"helm install {NAME} charts/whatsapp-operator -n {NAMESPACE} --create-namespace --set image.repository=REGISTRY/operator"
ACME, READY = "kubectl apply -f examples/cluster.yaml", "kubectl wait wac/acme --for=condition=Ready --timeout=2m"
DEFAULT = (OPERATOR, ACME, READY)
CRD = "kubectl delete crd whatsappclusters.multiconnect.dev --ignore-not-found"
STARTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("README.md", "Install it"): (),
    ("charts/whatsapp-cluster/README.md", "whatsapp-cluster"): (OPERATOR,),
    ("charts/whatsapp-operator/README.md", "whatsapp-operator"): (),
    ("docs/benchmarks.md", "Benchmarks"): (OPERATOR,),
    ("docs/install.md", "With Helm"): (),
    ("docs/install.md", "One team's namespaces only"): (CRD, "kubectl create namespace chat", "kubectl create namespace chat-staging"),
    ("docs/install.md", "Argo CD"): ("kubectl create namespace argocd", "kubectl create configmap argocd-cm -n argocd"),
    ("docs/install.md", "Uninstall"): (OPERATOR, "helm install acme charts/whatsapp-cluster --set preset=staging"),
    ("docs/kind.md", "The operator on kind"): (OPERATOR,),
    ("docs/install.md", "With kind"): (OPERATOR,),
}
"""By page and section: what is there when its session begins, if not the operator and cluster `acme`."""
NARROW = f"helm status {NAME} -n chat-operator"
CLEAN = (
    f"helm uninstall {NAME} -n {NAMESPACE} --ignore-not-found",
    # After a session for namespaces alone, whose CRD is not Helm's.
    f"! {NARROW} || (helm uninstall {NAME} -n chat-operator && {CRD} && kubectl delete namespace chat chat-staging --wait=false)",
)
"""Removes the operator of an earlier session."""

BLOCKS = [block for block in all_blocks() if block.page not in PAGES]
CONSOLES = [block for block in BLOCKS if block.language == "console"]
COMMANDS = [(block, command) for block in CONSOLES for command in block.commands()]
SESSIONS = {
    place: [command for _, command in found if command.typed not in ELSEWHERE]
    for place, found in itertools.groupby(COMMANDS, key=lambda one: (one[0].page, one[0].section))
}
"""What runs here, by page and section."""


def place_of(place: tuple[str, str]) -> tuple[bool, bool]:
    """The place of a session among all, so that the operator is seldom installed: last those that begin without it or that remove it."""
    return OPERATOR not in STARTS.get(place, DEFAULT), any("uninstall" in command.typed for command in SESSIONS[place])


PLAYED = sorted((place for place, commands in SESSIONS.items() if commands), key=place_of)


class Workstation:
    """A shell with kubectl and helm in front of a cluster. While the operator's chart is installed, the operator runs as a process."""

    def __init__(self, plane: ControlPlane, folder: Path, programs: Binaries) -> None:
        self.plane, self.folder = plane, folder
        self.operators = Operators(plane, folder / "operators", env={"LOG_LEVEL": "INFO"})
        (folder / "operators").mkdir()
        path = os.pathsep.join([str(programs["kubectl"].parent), str(programs["helm"].parent), os.environ["PATH"]])
        # GOGC: kubectl and helm end before collecting their garbage is worth the time.
        self.env = {"PATH": path, "HOME": str(folder), "KUBECONFIG": str(folder / "kubeconfig"), "LANG": "C.UTF-8", "GOGC": "off"}
        self._numbers = itertools.count(1)

    def begin(self, start: tuple[str, ...]) -> str:
        """Have what a session begins with, in a namespace of its own; returns the namespace."""
        namespace = f"documented-{next(self._numbers)}"
        self.plane.kubectl("create", "namespace", namespace)
        kubeconfig.read(self.plane.admin_kubeconfig).write(Path(self.env["KUBECONFIG"]), namespace=namespace)
        is_installed = OPERATOR in start and self.operators.running
        for typed in start if is_installed else (*CLEAN, *start):
            if not (is_installed and typed == OPERATOR):
                self.run(typed)
        return namespace

    def run(self, typed: str) -> str:
        """What a command prints. AssertionError with its errors if it fails."""
        for name, value in REPLACED.items():
            typed = typed.replace(name, value)
        if f"helm uninstall {NAME}" in typed:  # while it still may release its Lease
            self.operators.close()
            self.operators.running.clear()
        done = subprocess.run(
            ["bash", "-c", typed], cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
        assert done.returncode == 0, f"$ {typed}\n{done.stdout}{done.stderr}{self._log()}"
        if typed.startswith("helm "):
            self._follow()
        return done.stdout

    def play(self, command: Command) -> None:
        """Run a command of a document; what it reads must become what the document shows."""
        deadline = time.monotonic() + LONG
        while not printed_as_shown(command.printed, printed := self.run(command.typed)):
            shows = f"$ {command.typed}\nprinted:\n{printed}\nthe document shows:\n{command.printed}"
            assert command.typed.startswith("kubectl get "), shows
            assert time.monotonic() < deadline, shows
            time.sleep(0.2)

    def end(self, namespace: str) -> None:
        """Remove what a session has made in its namespace."""
        self.plane.kubectl("delete", "namespace", namespace, "--wait=false")

    def _follow(self) -> None:
        """Start the operator if its chart was installed, as its Deployment would on nodes that run its image."""
        if not self.operators.running:
            account = self.plane.kubectl("get", "serviceaccount", NAME, "-n", NAMESPACE, "--ignore-not-found", "-o", "name")
            if account:
                self.operators.start("op-a")

    def _log(self) -> str:
        return "".join(process.last_lines(10) for process in self.operators.running.values())


def printed_as_shown(shown: str, printed: str) -> bool:
    """Whether a command printed what a page shows: ages and white space do not count, `...` stands for anything."""
    ages = re.compile(r"\b(\d+[dhms])+\b")
    shown, printed = (ages.sub("AGE", text) for text in (shown, printed))
    return not shown or doctest.OutputChecker().check_output(shown, printed, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


@pytest.fixture(scope="module")
def workstation(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workstation]:
    folder = tmp_path_factory.mktemp("documented")
    plane = ControlPlane.start(folder / "plane", binaries=binaries)
    nodes = folder / "hollow"
    argv: list[str | Path] = [sys.executable, "-m", "localkube.hollow", "--nodes", "3", "--folder", nodes]
    argv += ["--kubeconfig", plane.admin_kubeconfig]
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'hack'}{os.pathsep}{ROOT / 'operator'}"}
    hollow = start("hollow nodes", argv, folder=folder, log=folder / "hollow.log", env=env)
    station = Workstation(plane, folder, provide(os.environ, programs=(*pinned_programs(), *chart_programs())))
    try:
        wait_until((nodes / "hollow.json").exists, [hollow], "to be ready", time.monotonic() + LONG)
        yield station
    finally:
        station.operators.close()
        stop([hollow])
        plane.stop()


# ---------------------------------------------------------------- the commands


@pytest.mark.parametrize("place", PLAYED, ids=" - ".join)
def test_the_commands_of_a_section_do_what_it_says(workstation: Workstation, place: tuple[str, str]) -> None:
    start, commands = STARTS.get(place, DEFAULT), SESSIONS[place]
    namespace = workstation.begin(start)
    for command in commands:
        workstation.play(command)
    typed = [*start, *(command.typed for command in commands)]
    if workstation.operators.running and any("acme" in one or one == ACME for one in typed):
        workstation.run(READY)
    workstation.end(namespace)


def test_what_make_is_to_do_is_there() -> None:
    made = {part.strip() for _, command in COMMANDS for part in command.typed.split("&&") if part.startswith("make ")}
    assert len(made) > 5
    for typed in sorted(made):
        done = subprocess.run(["bash", "-c", f"{typed} --dry-run"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"$ {typed}\n{done.stderr}"
        for name in re.findall(r"\b([A-Z_]+)=", typed):
            assert f"$({name})" in (ROOT / "Makefile").read_text(encoding="utf-8"), f"$ {typed}: nothing reads {name}"


def test_a_command_runs_here_or_the_table_says_what_runs_it() -> None:
    assert sorted(ELSEWHERE.keys() - {command.typed for _, command in COMMANDS}) == [], "no document has these commands"
    assert {place for place in STARTS if not SESSIONS.get(place)} == set(), "these sections have no command that runs here"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    there = {page: one for page, one in PAGES.items() if (ROOT / page).exists()}
    for typed, one in (ELSEWHERE | there).items():
        file, _, test = one.runs.partition("::")
        if target := re.fullmatch(r"make (\S+)", one.runs):
            assert re.search(rf"^{target[1]}:", makefile, re.MULTILINE), typed
        else:
            named = " ".join(typed.split()[:2]) if file == ".ci/run" else f"def {test or 'test_'}"
            assert named in (ROOT / file).read_text(encoding="utf-8"), typed


def test_every_block_has_a_language_for_which_there_is_a_check() -> None:
    assert [f"{block}: {block.language}" for block in BLOCKS if block.language not in LANGUAGES] == []
    assert [str(block) for block in BLOCKS if block.language != "console" and re.search(r"^\$ ", block.text, re.MULTILINE)] == []


# ---------------------------------------------------------------- the instrument

PAGE = """# Title

1. In a list:

   ```console
   $ one --two \\
       --three   # a remark
   printed
   $ four
   ```

## Next

```yaml
a: 1
```
"""


def test_a_block_knows_its_place_and_its_commands() -> None:
    console, other = blocks("a.md", PAGE)
    assert (console.section, console.line, console.language) == ("Title", 5, "console")
    assert console.commands() == [Command("one --two --three", "printed\n"), Command("four", "")]
    assert (str(other), other.section, other.language, other.text) == ("a.md:14", "Next", "yaml", "a: 1\n")
    with pytest.raises(ValueError, match="begins with the prompt"):
        Block("a.md", "", 1, "console", "kubectl get pods\n").commands()


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("NAME  AGE\nacme  12s\n", "NAME   AGE\nacme   2m5s\n", True),
        ("NAME  READY\nacme  True\n", "NAME  READY\nacme  False\n", False),
        ("one\n...\nthree\n", "one\ntwo\nthree\n", True),
        ("one\n", "one\ntwo\n", False),
        ("", "anything\n", True),
    ],
)
def test_what_is_printed_is_compared_but_for_ages(shown: str, printed: str, same: bool) -> None:
    assert printed_as_shown(shown, printed) == same
