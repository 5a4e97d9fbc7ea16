"""The workflows: what they may do, what they run, and that users verify a release as the workflow does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from localkube.programs.binaries import provide
from localkube.programs.versions import workflow_programs
from localkube.release.__main__ import main, verification

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())
BIN = Path(sys.executable).parent
Obj = dict[str, Any]


def read(path: Path) -> Obj:
    workflow: Obj = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # texts only: "on" stays a text
    return workflow


RELEASE = read(ROOT / ".github" / "workflows" / "release.yaml")


def steps(workflow: Obj) -> Iterator[Obj]:
    for job in workflow["jobs"].values():
        yield from job.get("steps", ())


def test_actionlint_finds_nothing() -> None:
    program = provide(os.environ, programs=workflow_programs())["actionlint"]
    argv = [str(program), "-shellcheck", str(BIN / "shellcheck"), *map(str, WORKFLOWS)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_actionlint_judges_the_shell_too(tmp_path: Path) -> None:
    program = provide(os.environ, programs=workflow_programs())["actionlint"]
    text = "on: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: echo $A\n"
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    argv = [str(program), "-shellcheck", str(BIN / "shellcheck"), str(tmp_path / "a.yaml")]
    assert "SC2086" in subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path).stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_no_right_that_a_job_does_not_name(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {}
    assert "pull_request_target" not in workflow["on"]
    assert "group" in workflow["concurrency"]
    for name, job in workflow["jobs"].items():
        assert job["permissions"], name
        assert "uses" in job or 0 < int(job["timeout-minutes"]) <= 150, name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_and_no_text_of_others_becomes_a_command(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        if "uses:" in line and "./" not in line:
            assert re.search(r"uses: [\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line
    for step in steps(read(path)):
        assert "${{" not in step.get("run", ""), step
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] == "false"


def test_only_jobs_of_the_release_environment_have_the_registrys_token() -> None:
    for name, job in RELEASE["jobs"].items():
        assert ("REGISTRY_TOKEN" in str(job)) == (job.get("environment") == "release"), name


def test_nothing_is_published_before_it_was_tested_and_verified() -> None:
    def needed(name: str) -> set[str]:
        needs = RELEASE["jobs"][name].get("needs", [])
        direct = {needs} if isinstance(needs, str) else set(needs)
        return direct.union(*map(needed, direct))

    jobs = set(RELEASE["jobs"])
    assert needed("publish") == jobs - {"publish"}
    assert all("test" in needed(name) for name in jobs - {"test"})
    assert "draft" in needed("verify")
    assert [name for name in jobs if "--draft=false" in str(RELEASE["jobs"][name])] == ["publish"]


def test_what_the_workflows_make_is_in_the_makefile() -> None:
    targets = {
        target for path in WORKFLOWS for step in steps(read(path)) for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))
    }
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert targets >= {"setup", "release-files"}
    assert targets <= made


# ---- verification


def test_the_workflow_runs_the_commands_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    (step,) = (step for step in RELEASE["jobs"]["verify"]["steps"] if "docs/verify.md" in step.get("name", ""))
    assert '-m localkube.release verification > "$RUNNER_TEMP/verify"' in step["run"]
    assert step["run"].rstrip().endswith('VERSION="${GITHUB_REF_NAME#v}" bash -euxo pipefail verify')
    main(["verification"], root=ROOT)
    assert capsys.readouterr().out == verification(ROOT)
    page = (ROOT / "docs" / "verify.md").read_text(encoding="utf-8")
    assert f"```bash\n{verification(ROOT)}```" in page


def test_every_variable_of_the_commands_is_given_by_page_and_workflow() -> None:
    text = verification(ROOT)
    own = set(re.findall(r"\b(\w+)=", text)) | set(re.findall(r"for (\w+) in", text))
    used = set(re.findall(r"\$\{?(\w+)", text)) - own
    page = (ROOT / "docs" / "verify.md").read_text(encoding="utf-8")
    assert used == set(re.findall(r"(\w+)=", next(line for line in page.splitlines() if line.startswith("$ export"))))
    assert used <= {*RELEASE["env"], "VERSION"}


def test_everything_that_is_signed_is_verified() -> None:
    text = verification(ROOT)
    signed = {image for image in ("operator", "wabiz-sim", "whatsapp-operator", "whatsapp-cluster") if image in str(RELEASE["jobs"])}
    assert len(signed) == 4
    for image in signed:
        assert re.search(rf"for (image|chart) in .*\b{image}\b", text), image
    for word in ("cosign verify ", "cosign verify-attestation", "gh attestation verify", "sha256sum --check"):
        assert word in text


def test_the_commands_are_good_bash_and_stop_at_the_first_that_fails(tmp_path: Path) -> None:
    script = tmp_path / "verify"
    script.write_text(verification(ROOT), encoding="utf-8")
    argv = [str(BIN / "shellcheck"), "--shell=bash", "--exclude=SC2154,SC2164", str(script)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    calls, programs = tmp_path / "calls", tmp_path / "bin"
    programs.mkdir()
    for name in ("cosign", "gh", "jq", "helm", "cmp", "sha256sum"):
        (programs / name).write_text(f'#!/bin/bash\necho "{name} $*" >> {calls}\n[ "$FAILS" != {name} ]\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    env = {"PATH": f"{programs}:{os.defpath}", "REGISTRY": "r.example/o", "REPOSITORY": "o/p", "VERSION": "1.2.3"}
    for fails in ("", "cosign", "gh", "helm", "cmp", "sha256sum"):
        work = tmp_path / f"work-{fails}"
        (work / "whatsapp-operator-1.2.3").mkdir(parents=True)
        calls.unlink(missing_ok=True)
        argv = ["bash", "-euo", "pipefail", str(script)]
        done = subprocess.run(argv, env={**env, "FAILS": fails}, cwd=work, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode != 0) == bool(fails), fails
    said = calls.read_text(encoding="utf-8")
    assert "--certificate-identity https://github.com/o/p/.github/workflows/release.yaml@refs/tags/v1.2.3" in said
    assert "helm pull oci://r.example/o/charts/whatsapp-cluster --version 1.2.3" in said
