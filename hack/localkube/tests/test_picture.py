"""The demo's picture: every turn of a holder is one bar, on its pod's line, and ends where the next begins."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from localkube.scenarios.demo.picture import COLOURS, timeline
from localkube.scenarios.demo.picture import svg as drawn
from outside.observer import Commit

BEGUN = 100.0


def commit(shard: int, pod: str, after: float) -> Commit:
    return Commit("default", "acme", shard, f"{int(after)}-x", int(after), pod, f"uid-{pod}", 7, 0.0, BEGUN + after)


def test_a_turn_ends_with_the_next_holder_and_with_its_service() -> None:
    commits = [commit(0, "acme-coreapp-0", 1), commit(2, "acme-coreapp-1", 4), commit(0, "acme-coreapp-10", 5)]
    made = timeline(
        commits, [(2, BEGUN + 7)], {"pod deleted": BEGUN + 5}, [BEGUN + 1.1, BEGUN + 1.2, BEGUN + 99], begun=BEGUN, ended=BEGUN + 9
    )
    assert made["spans"] == [
        {"shard": 0, "pod": "acme-coreapp-0", "from": 1.0, "to": 5.0},
        {"shard": 0, "pod": "acme-coreapp-10", "from": 5.0, "to": 9.0},
        {"shard": 2, "pod": "acme-coreapp-1", "from": 4.0, "to": 7.0},
    ]
    assert made["marks"] == [{"what": "pod deleted", "at": 5.0}]
    assert (sum(made["delivered"]), made["delivered"][4]) == (2, 2), "what came after the end is not drawn"


def test_each_turn_is_a_bar_of_its_shards_colour_on_the_line_of_its_pod() -> None:
    commits = [commit(0, "acme-coreapp-10", 0), commit(1, "acme-coreapp-2", 0), commit(0, "acme-coreapp-2", 4)]
    root = ET.fromstring(drawn(timeline(commits, [], {"<b> & co": BEGUN + 4}, [BEGUN + 1], begun=BEGUN, ended=BEGUN + 8)))
    texts = [one.text for one in root.findall(".//{*}text")]
    assert "<b> & co" in texts
    assert texts.index("acme-coreapp-2") < texts.index("acme-coreapp-10"), "by number"
    lines = {one.text: float(one.get("y", 0)) - 14 for one in root.findall(".//{*}text") if (one.text or "").startswith("acme")}
    bars = [(one.get("fill"), float(one.get("y", 0)), float(one.get("width", 0))) for one in root.findall(".//{*}rect")]
    whole = max(width for fill, _, width in bars if fill == COLOURS[1])
    assert sorted((fill, y) for fill, y, _ in bars if fill in COLOURS) == sorted(
        [(COLOURS[0], lines["acme-coreapp-10"]), (COLOURS[0], lines["acme-coreapp-2"]), (COLOURS[1], lines["acme-coreapp-2"])]
    )
    assert all(abs(width - whole / 2) < 0.2 for fill, _, width in bars if fill == COLOURS[0]), "each half of the time"
