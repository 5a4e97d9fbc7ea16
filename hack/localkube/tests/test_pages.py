"""The figures that the text shows are those that are kept as JSON, each table of one run, and nothing else is a figure."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from localkube import pages
from localkube.blocks import BLOCKS
from localkube.errors import LocalKubeError, guarded
from localkube.files import stale
from localkube.provenance import Provenance
from localkube.scenarios.bench import failovers
from localkube.scenarios.demo.command import Demo
from localkube.scenarios.faults.hollow import named
from localkube.scenarios.faults.kind import FAULTS
from localkube.scenarios.runner import report as chaos_print
from localkube.scenarios.runner.player import Outcome
from localkube.scenarios.scale import command as scale
from outside.ledger import Ledger

Obj = dict[str, Any]

ROOT = Path(__file__).resolve().parents[3]
MACHINE = {"cpus": 2, "model": "Some CPU", "memory_gib": 4.0, "kernel": "6.1", "python": "3.11"}
RUN = {"commit": "a" * 40, "date": "2026-01-02T03:04:05Z", "command": "hack/x", "machine": MACHINE, "load": {"begin": 0.1, "end": 0.2}}
ABOUT: Obj = {"run": RUN, "complaints": [], "missed": []}
LEDGER = Ledger(sent=7, delivered=7).as_json()


# ------------------------------------------------------------ this repository


def test_the_text_says_what_the_files_of_figures_say() -> None:
    assert stale(pages.derived(ROOT)) == {}, "'make figures' writes it"


def test_no_table_of_times_or_ratios_stands_outside_of_the_places() -> None:
    for page in pages.PAGES:
        rest = pages.PLACE.sub("", (ROOT / page).read_text(encoding="utf-8"))
        assert not [line for line in rest.splitlines() if line.startswith("|") and re.search(r"\d+ ms\b|\b[\d.]+x\b", line)], page


@pytest.mark.parametrize("name", pages.SOURCES)
def test_a_file_of_figures_says_where_it_comes_from_and_names_no_folder(name: str) -> None:
    if (kept := pages.kept(ROOT, name)) is None:
        assert f"`{pages.SOURCES[name][1]}`, then `make figures TAKE={name}`" in (ROOT / "README.md").read_text(encoding="utf-8")
        return
    assert set(kept["run"]) == {"commit", "date", "command", "machine", "load"}
    assert kept["run"]["commit"] != "unknown"
    assert not re.search(r"/(home|root|tmp|work|Users)/", json.dumps(kept))


def test_each_place_of_the_text_is_known_and_each_block_has_a_place() -> None:
    places = [place["name"] for page in pages.PAGES for place in pages.PLACE.finditer((ROOT / page).read_text(encoding="utf-8"))]
    assert set(places) == set(BLOCKS)


# ------------------------------------------------------------ the instrument


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository whose pages have places, and one file of figures."""
    for page in pages.PAGES:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_text("# Page\n\n<!-- figures: bench -->\n<!-- end of figures -->\n\nend\n", encoding="utf-8")
    keep(tmp_path, bench())
    pages.main([], root=tmp_path)
    return tmp_path


def keep(root: Path, figures: Obj) -> None:
    (root / "build").mkdir(exist_ok=True)
    (root / "build" / "bench.json").write_text(json.dumps(figures), encoding="utf-8")
    pages.publish(root, "bench")


def check(root: Path) -> int:
    return guarded("hack/figures", lambda: pages.main(["--check"], root=root))


def bench(*times: float) -> Obj:
    results = {"pod-deleted": list(times) or [0.067]}
    writes = {"pod-deleted": {"writes": [3, 5]}, "steady": {"writes": [0]}}
    return ABOUT | {"cases": failovers.figures(results, {}), "writes": writes, "memory": {}, "steady_s": 60.0, "messages": LEDGER}


def test_another_figure_in_the_file_makes_the_text_stale(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(repository) == 0
    keep(repository, bench(0.068))
    capsys.readouterr()
    assert check(repository) == 1
    assert f"{', '.join(pages.PAGES)}: not what docs/figures has" in capsys.readouterr().err
    assert pages.main([], root=repository) == 0
    assert capsys.readouterr().out == "".join(f"wrote {page}\n" for page in pages.PAGES)
    assert "68 ms" in (repository / "README.md").read_text(encoding="utf-8")
    assert check(repository) == 0


def test_a_figure_that_is_changed_in_the_text_makes_it_stale(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = repository / "README.md"
    page.write_text(page.read_text(encoding="utf-8").replace("67 ms", "66 ms", 1), encoding="utf-8")
    assert check(repository) == 1
    assert "README.md: not what docs/figures has" in capsys.readouterr().err


def test_the_picture_of_the_demo_is_drawn_again_when_it_is_old(repository: Path) -> None:
    timeline = {"seconds": 2.0, "spans": [{"shard": 0, "pod": "acme-coreapp-0", "from": 0.0, "to": 2.0}], "marks": [], "delivered": [1]}
    (repository / "docs/figures/demo.json").write_text(json.dumps({"timeline": timeline}), encoding="utf-8")
    assert list(stale(pages.derived(repository))) == [repository / pages.PICTURE]
    assert pages.main([], root=repository) == 0
    assert "acme-coreapp-0" in (repository / pages.PICTURE).read_text(encoding="utf-8")
    assert check(repository) == 0


def test_single_measurements_are_not_kept(repository: Path) -> None:
    keep(repository, bench() | {"samples": [1], "cases": {"pod-deleted": {"samples": [{"took": 1}], "n": 1, "details": {}}}})
    kept = pages.kept(repository, "bench")
    assert kept is not None
    assert kept["cases"] == {"pod-deleted": {"n": 1}}
    assert "samples" not in kept


def test_figures_of_an_unknown_commit_are_not_taken_over(repository: Path) -> None:
    for run in ({}, {"run": {"commit": "unknown"}}):
        (repository / "build" / "bench.json").write_text(json.dumps(run), encoding="utf-8")
        with pytest.raises(LocalKubeError, match="does not say of which commit"):
            pages.publish(repository, "bench")
    with pytest.raises(LocalKubeError, match=r"there is no build/chaos.json: 'make chaos' writes it"):
        pages.publish(repository, "chaos")


def test_a_place_without_a_run_says_how_to_make_one(repository: Path) -> None:
    text = pages.filled("<!-- figures: chaos -->\nold figures\n<!-- end of figures -->", lambda name: pages.kept(repository, name))
    assert "old figures" not in text
    assert "`make chaos`, then `make figures TAKE=chaos`" in text
    with pytest.raises(LocalKubeError, match="no way to show nonsense"):
        pages.filled("<!-- figures: nonsense -->\n<!-- end of figures -->", lambda _: None)


# ------------------------------------------------------------ what the programs write can be shown


def shown(name: str, figures: Obj) -> str:
    return BLOCKS[name](pages.published(json.loads(json.dumps(figures))))


def test_the_bench() -> None:
    text = shown("bench", bench(*[0.1] * 40))
    assert "One run of `hack/x` on 2026-01-02, commit `aaaaaaaaaaaa`; 2 CPUs (Some CPU), 4 GiB, Linux 6.1; load 0.1" in text
    assert "| 40 | 100 ms | 100 ms | 100 ms | p95 200 ms | 350x |" in text
    assert "A failover cost 3 to 5 API writes. A cluster to which nothing happened: 0 writes in 60 s." in text
    assert "| 2 | 100 ms | - | 300 ms | max 200 ms, **missed** | 117x |" in shown("bench", bench(0.1, 0.3))
    assert "- steady: 3 writes" in shown("bench", bench() | {"complaints": ["steady: 3 writes"]})


def test_a_dirty_commit_and_a_crowded_machine_are_said() -> None:
    text = shown("bench", bench() | {"run": RUN | {"commit": "b" * 40 + " dirty", "load": {"begin": 9.0, "end": 0.2}}})
    assert "commit `bbbbbbbbbbbb` with changes" in text
    assert "The machine was crowded" in text


def test_chaos() -> None:
    quick, away, still = (named(name)[0] for name in ("pod-deleted", "api-down-60s", "lost-probes"))
    outcomes = [
        (
            quick,
            Outcome(
                "pod-deleted",
                times=[0.1],
                not_handed_over=["shard 0 of c00"],
                evidence=Counter({"PodDeleted": 1}),
                sent=5,
                effects=Counter({"pods ended": 2}),
            ),
        ),
        (away, Outcome("api-down-60s", times=[60.3], samples=[{"from_possible": 1.3}], sent=2)),
        (still, Outcome("lost-probes", times=[0.01], resumed=[0.1])),
    ]
    about = {**ABOUT, "clusters": 2, "ledgers": {"c00": LEDGER, "c01": LEDGER}, "complaints": ["pod-deleted: 1 of 2 failed"]}
    figures = chaos_print.report(outcomes, about, beyond=chaos_print.bound)
    text = shown("chaos", figures)

    assert "| 2 (1 failed) | 100 ms | - | failed | max 200 ms, **missed** | - | PodDeleted 1 | pods ended 2 |" in text
    assert "from when a handover could be made: p50 1.30 s, max 1.30 s | 1 | 60.3 s | - | 60.3 s | - | - |" in text
    assert "| 1 (1 resumed, apart) | 10 ms |" in text
    assert "Messages: 14 sent = 14 delivered" in text
    assert "7 messages: 0 lost" in text
    assert "- pod-deleted: 1 of 2 failed" in text
    assert still.what in text


def test_e2e() -> None:
    table = {fault.name: fault for fault in FAULTS}
    samples = [{"took": 0.25, "committed": 0.06, "decided": 0.03}]
    deleted = Outcome("holder-deleted", times=[0.25], samples=samples, evidence=Counter({"PodDeleted": 1}))
    frozen = Outcome("holder-frozen", times=[3.5], not_handed_over=["shard 0 of acme"])
    played = [(table[one.name], one) for one in (deleted, frozen, Outcome("create", times=[4.9]))]
    about = {**ABOUT, "seconds": 60.0, "database": "PostgreSQL", "messages": LEDGER, "missed": ["create: max is 9 s"]}
    figures = chaos_print.report(played, about, beyond=chaos_print.limit)
    text = shown("e2e", figures)

    assert "| kubectl delete pod | PodDeleted 1 | 60 ms / 60 ms | 1 | 250 ms | - | 250 ms | 0 rejected | 5 s | - |" in text
    assert "| SIGSTOP | - | - | 2 (1 failed) | 3.50 s | - | failed | max 4.50 s, **missed** | 9 s | - |" in text
    assert "| kubectl apply -> Ready | 1 | 4.90 s | - | 4.90 s |" in text
    assert "7 sent = 7 delivered" in text
    assert "- create: max is 9 s" in text


def test_failure_modes() -> None:
    harmless = {"lost": 0, "doubled": 0, "wrong_failovers": [], "violations": [], "goal": None}
    moved = {"what": "pod deleted", "failover": True, "n": 2, "failures": 1, "p50": 0.1, "max": math.inf, "evidence": {"PodDeleted": 1}}
    still = {"what": "probes lost", "failover": False, "n": 1, "p50": 0.01, "max": 0.02, "evidence": {}, "violations": ["one holder"]}
    created = {"what": "created", "failover": False, "n": 1, "p50": 4.0, "max": 4.0, "evidence": {}}
    faults = {"pod-deleted": harmless | moved, "lost-probes": harmless | still}
    text = shown("chaos-modes", ABOUT | {"faults": faults})

    assert (
        "| `pod-deleted` | pod deleted | PodDeleted 1 | 2 (1 failed) | 100 ms | failed | 0 | 0 |"
        in text.partition("Nothing is handed over:")[0]
    )
    assert "| `lost-probes` | probes lost | 1 | 10 ms | 20 ms | 0 | 0 |" in text.partition("Nothing is handed over:")[2]
    assert "0 failovers of healthy holders, 1 broken laws." in text
    on_kind = shown("e2e-modes", ABOUT | {"faults": faults | {"create": harmless | created}})
    assert "pod-deleted" in on_kind
    assert "create" not in on_kind, "what breaks nothing is no failure mode"


def test_scale() -> None:
    found = scale.Found(1000, steady_s=90.0, steady_cpu=0.5, rss=300.0, deleted=[0.1] * 20, killed=[0.2] * 20)
    text = shown("scale", {"run": RUN, "complaints": scale.missed(found), **scale.figures(found)})
    assert "| operator: resident memory | 300 MiB | 250 MiB, **missed** |" in text
    assert "| both | 40 | 100 ms | 200 ms | 200 ms | 175x |" in text
    assert "- operator: resident memory: 300 MiB, the goal is 250 MiB" in text


def test_the_demo_sets_measured_next_to_vendor() -> None:
    environment: Any = None
    played = Demo(environment, ROOT / "examples" / "cluster.yaml", Console())
    played.ledger, played.slowest = Ledger(sent=7, delivered=7), 0.5
    played.two_holders = {"seen_from_outside": 0, "whatsapp_servers": 0, "resolutions": 0}
    for number, step in enumerate(played.steps[:-1], 1):
        step.seconds = number / 10
    text = shown("demo", {"run": RUN, "complaint": "it broke off", **played.figures()})

    assert (
        "| the pod that serves shard 0 is deleted | 200 ms | 35 s | until the next message of its shard was delivered by another |" in text
    )
    assert "| shards 4 -> 2 | - | 45-60 s |" in text
    assert "Messages: 7 sent = 7 delivered" in text
    assert "Two active holders of one shard: seen 0 times" in text
    assert "- it broke off" in text


def test_what_programs_write_down_begins_at_the_beginning(tmp_path: Path) -> None:
    assert set(Provenance(tmp_path, "hack/x", []).of_run()) == set(RUN)
