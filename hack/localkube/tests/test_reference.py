"""What is made from the operator's tables is fresh, and whole."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
import yaml

from kubectl_whatsapp import why
from kubectl_whatsapp.rights import NEEDED, sentence
from localkube import reference
from localkube.errors import LocalKubeError
from localkube.files import rewrite
from localkube.reference import CRD, diagrams, reasons, rights
from whatsapp_operator.core import always, evidence, report, rules
from whatsapp_operator.core.reasons import Reason

ROOT = Path(__file__).resolve().parents[3]


@cache
def derived() -> dict[str, str]:
    """What every file that holds something derived should be, by its path in the repository."""
    return {str(path.relative_to(ROOT)): text for path, text in reference.derived(ROOT).items()}


def test_what_is_derived_is_fresh() -> None:
    stale = [path for path, text in derived().items() if (ROOT / path).read_text(encoding="utf-8") != text]
    assert stale == [], "run 'make reference'"


def test_every_reason_has_a_meaning_and_says_what_to_do() -> None:
    assert why.texts().keys() == set(Reason)
    assert [text for texts in why.texts().values() for text in texts if not text.endswith(".") or "|" in text] == []


def test_every_name_of_a_reason_is_its_word() -> None:
    assert [one.name for one in Reason] == [re.sub(r"(?<!^)(?=[A-Z])", "_", str(one)).upper() for one in Reason]


def test_every_rule_is_in_the_diagram_once_and_in_its_order() -> None:
    boxes = re.findall(r' r\d+\["([^"]+)"\]', diagrams.rules())
    assert [name for box in boxes for name in box.split("<br>")] == [str(rule.name) for rule in rules.RULES]


def test_every_piece_of_evidence_is_in_the_diagram_once() -> None:
    boxes = re.findall(r' --> \w+\["([^"]+)"\]', diagrams.evidence())
    assert sorted(name for box in boxes for name in box.split("<br>")) == sorted(proof.evidence for proof in evidence.EVIDENCE)


def test_every_rule_that_always_acts_is_in_the_table() -> None:
    assert re.findall(r"^\| `(\w+)`", diagrams.always_rules(), re.MULTILINE) == [rule.name for rule in always.ALWAYS]


def test_every_field_of_the_resource_is_on_its_page() -> None:
    version = yaml.load((ROOT / CRD).read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)["spec"]["versions"][0]
    page = derived()["docs/api.md"]
    fields = version["schema"]["openAPIV3Schema"]["properties"]
    assert {f"{part}.{name}" for part in ("spec", "status") for name in fields[part]["properties"]} <= set(re.findall(r"`([\w.]+)`", page))
    assert "`spec.coreapp.pod.env[].valueFrom.secretKeyRef.key`" in page
    assert "`spec.account.pin`" not in page, "the CRD rejects it in any case"


def test_the_page_of_events_says_what_the_operator_emits_for_a_condition() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", derived()["docs/events.md"], re.MULTILINE))
    said = 0
    for condition, statuses in reasons.by_condition(unobserved=False).items():
        for reason, status in statuses.items() if condition != "Events" else ():
            after = {"conditions": [{"type": condition, "status": status, "reason": reason, "message": "m"}]}
            for event in report.events({}, after, {}, now=datetime(2026, 1, 1, tzinfo=UTC)):
                types, _, cause = rows[event.reason].partition(" | ")
                assert ("Warning" if event.warning else "Normal") in types.split(" or ")
                assert f"`{condition}` is `{status}`" in cause.split("; ")
                said += 1
    assert said == sum(row.count("` is `") for row in rows.values())


def test_the_page_of_events_has_every_step() -> None:
    emitted = set(reasons.by_condition()["Events"])
    assert len(emitted) > 5
    assert emitted <= set(re.findall(r"^\| `(\w+)`", derived()["docs/events.md"], re.MULTILINE))


def a_copy(root: Path) -> Path:
    for path in [*derived(), *(str(file.relative_to(ROOT)) for file in (ROOT / rights.FOLDER).glob("*-rules.yaml"))]:
        there = root / path
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text((ROOT / path).read_text(encoding="utf-8"), encoding="utf-8")
    return root


def test_the_page_of_the_plugin_has_every_command_option_and_right() -> None:
    page = derived()["docs/kubectl-commands.md"]
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == [*NEEDED, "Options of every command"]
    assert all(sentence(command) in page for command in NEEDED)
    for option in ("`--shards` |", "`--to` |", "`--until` |", "`--yes-in-production` |", "`--output`, `-o` | text |"):
        assert page.count(f"| {option}") == 1, option
    assert "`kubectl whatsapp switchover CLUSTER SHARD`" in page


def test_what_is_stale_is_rewritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = a_copy(tmp_path) / "docs" / "reasons.md"
    page.write_text(page.read_text(encoding="utf-8").replace("| `Serving` |", "| `Servant` |"), encoding="utf-8")

    rewrite(reference.derived(tmp_path), tmp_path)

    assert capsys.readouterr().out == "wrote docs/reasons.md\n"
    assert page.read_text(encoding="utf-8") == (ROOT / "docs" / "reasons.md").read_text(encoding="utf-8")


def test_a_page_without_its_marks_is_named(tmp_path: Path) -> None:
    (a_copy(tmp_path) / "docs" / "reasons.md").write_text("# Reasons\n", encoding="utf-8")

    with pytest.raises(LocalKubeError, match=r"reasons\.md lacks the marks .* 'begin Stalled"):
        reference.derived(tmp_path)
