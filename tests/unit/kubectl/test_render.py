"""Text for people: at any width, without colour where there is no terminal, and never longer than the terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from kubectl_whatsapp import checks, planning, render
from kubectl_whatsapp.reading import OPERATOR_LABEL
from kubectl_whatsapp.view import view
from kubectl_whatsapp.why import why
from kubectl_whatsapp.world import World

from .clusters import Cluster, a_cluster
from .test_view import troubled

ESCAPE = "\x1b["


def printed(value: object, width: int, *, terminal: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False, emoji=False, markup=False, force_terminal=terminal).print(value)
    return out.getvalue()


def clusters() -> dict[str, Cluster]:
    return {"well": a_cluster(), "troubled": troubled(), "nothing": a_cluster().without(*a_cluster().found), "many": a_cluster(32, 4)}


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("name", clusters())
def test_the_verdict_comes_first_and_no_line_is_too_long(name: str, width: int) -> None:
    found = view(clusters()[name].read())
    text = printed(render.status(found, wide=True), width)

    assert max(map(len, text.splitlines())) <= width
    assert " ".join(text.split()).startswith(f"shop/acme: {found.verdict.sentence}")
    words = re.sub(r"[\s│├└─]", "", text)
    for why_not in (*(one.why for one in found.shards), *(one.why for one in found.standbys)):
        assert re.sub(r"\s", "", why_not) in words
    for what in found.unread:
        assert re.sub(r"\s", "", what) in words


def test_an_answer_that_nobody_carries_out_is_not_shown_without_that() -> None:
    lines = printed(render.why(why(troubled().read())), 200).splitlines()
    assert " decides. " in lines[0]
    assert lines[1] == "No operator leads: none of this is done until one does."


def test_a_plan_of_nothing_says_so() -> None:
    world = World(a_cluster().read())
    assert "Nothing would change." in printed(render.plan(planning.planned(world, shards=2, spares=1)), 80)
    assert "Nothing would change." not in printed(render.plan(planning.planned(world, shards=2, spares=1, rejected=("no",))), 80)
    assert "Nothing would change." not in printed(render.plan(planning.planned(world, shards=4, spares=1)), 80)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_why_plan_and_check_fit_too(width: int) -> None:
    for cluster in (a_cluster(), troubled()):
        read = cluster.read()
        found = why(read, 0)
        for value in (
            render.why(found, wide=True),
            render.check(checks.check(read)),
            render.plan(planning.planned(World(read), shards=8, spares=2)),
        ):
            assert max(map(len, printed(value, width).splitlines())) <= width


def test_a_narrow_terminal_gets_lines_and_a_wide_one_a_table() -> None:
    found = planning.planned(World(a_cluster().read()), shards=4, spares=1)

    assert "STEP 1\n  what: Coreapps 3 -> 5\n  interrupts: nothing\n" in printed(render.plan(found), 40)
    assert re.search(r"^1 +Coreapps 3 -> 5 +nothing ", printed(render.plan(found), 120), re.MULTILINE)


STATUS = """\
shop/acme: 1 of 2 shards is not served: shard 0: node node-0 is gone. No operator leads, so no shard is moved.
├── The operator reported Serving: All 2 shards are served; 1 failure can be tolerated.
├── Deliberately not done
│   └── Planned changes are held: the cluster is paused. Failovers continue.
├── Shards: 2; the spec asks for 4
│   ├── 0 not served: node node-0 is gone (acme-coreapp-0 on node-0, epoch 10-first, for 3h)
│   └── 1 served by acme-coreapp-1 on node-1, epoch 11-first, for 3h
├── Standbys: 0 of 1 could take a shard; the spec asks for 1 spare
│   └── acme-coreapp-2 on node-2: not eligible (acme-coreapp-2 is not ready)
├── Operation: step 4 of 5, Restarting
│   ├── shards 2 -> 4
│   ├── deadline 12:02:40Z (in 2m)
│   └── then: shards get their holders
├── Operator: op-a_1234 led, but no longer leads; its Lease was renewed 5m ago; 1 replica is ready
├── Certificate: expires 2027-05-01, in 116 days
├── Last handovers (1 of 1)
│   └── 7m ago: shard 0, Failover from acme-coreapp-2 to acme-coreapp-0 (PodDeleted), commit 31 ms, serve 12 ms
├── could not read its Deployments (no answer within 1.0 s)
└── Next:
    kubectl -n whatsapp-operator-system get pods,leases
    kubectl -n whatsapp-operator-system logs --selector {selector} --tail 50
    kubectl -n shop describe pod acme-coreapp-0
    kubectl -n shop describe pod acme-coreapp-2
    kubectl whatsapp why acme -n shop
"""


def test_the_tree_of_a_cluster_in_trouble() -> None:
    assert printed(render.status(view(troubled().read())), 200) == STATUS.replace("{selector}", OPERATOR_LABEL)


def test_a_branch_stays_in_its_place_in_a_narrow_terminal() -> None:
    text = printed(render.status(view(a_cluster().read())), 40)

    assert "├── Shards: 2; the spec asks for 2\n│   ├── 0 served by acme-coreapp-0 on \n│   │   node-0, epoch 10-first, for 3h\n" in text


def test_standbys_that_could_not_be_read_are_not_called_absent() -> None:
    text = printed(render.status(view(a_cluster().without("pods").read())), 120)

    assert "├── Standbys: not known; the spec asks for 1 spare\n" in text
    assert "0 not known: pods could not be read (acme-coreapp-0, epoch 10-first, for 3h)" in text


def test_without_unicode_the_tree_is_drawn_in_ascii() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=out, width=120, highlight=False, emoji=False, markup=False).print(render.status(view(a_cluster().read())))
    out.flush()

    assert b"+-- Shards: 2; the spec asks for 2\n|   +-- 0 served by acme-coreapp-0" in out.buffer.getvalue()


def test_of_many_shards_those_with_trouble_are_shown_and_wide_shows_all() -> None:
    found = view(a_cluster(32, 4).without_node("node-17").read())
    text, wide = printed(render.status(found), 120), printed(render.status(found, wide=True), 120)

    assert "node node-17 is gone" in text
    assert "24 more are served, see -o wide" in text
    assert len(re.findall(r"── \d+ (?:not )?served", text)) == 8
    assert len(re.findall(r"── \d+ (?:not )?served", wide)) == 32


def test_colour_only_on_a_terminal_and_not_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    found = render.status(view(troubled().read()))
    assert ESCAPE in printed(found, 80, terminal=True)
    assert ESCAPE not in printed(found, 80)

    monkeypatch.setenv("NO_COLOR", "1")
    colours = re.findall(r"\x1b\[([\d;]*)m", printed(found, 80, terminal=True))
    assert not [one for one in colours if any(code.startswith(("3", "4", "9")) for code in one.split(";"))]


def test_a_pipe_gets_whole_lines_without_blanks_at_their_ends(capsys: pytest.CaptureFixture[str]) -> None:
    render.show(render.status(view(troubled().read())))
    lines = capsys.readouterr().out.splitlines()

    assert ESCAPE not in "".join(lines)
    assert [line for line in lines if line != line.rstrip()] == []
    assert "1 of 2 shards is not served: shard 0: node node-0 is gone. No operator leads, so no shard is moved." in lines[0]


def test_texts_with_markup_are_shown_as_they_are() -> None:
    found = a_cluster().says("Ready", "False", "Banned", "[red]:smile:[/red]")
    text = printed(render.verdict(view(found.read())), 120)

    assert "[red]:smile:[/red]" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172799, "47h"), (172800, "2d")]
)
def test_a_duration_is_in_the_largest_unit_of_which_there_are_two(seconds: float, text: str) -> None:
    assert render.span(seconds) == text
