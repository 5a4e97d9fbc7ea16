"""What a demo was, as a picture: which Coreapp held which shard, over time, and the messages that were delivered meanwhile. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from localkube import Obj
from outside.observer import Commit

BIN_S = 0.25
"""Width of a bar of messages."""
COLOURS = ("#2f6fde", "#e08a1e", "#2e9e6b", "#b0479b")
"""Of shards 0 to 3; distinguishable also for people who see no red or green."""
WIDTH, LEFT, RIGHT, TOP, LANE, BAR, STRIP, BOTTOM = 960, 130, 20, 78, 30, 20, 46, 40
FONT = 'font-family="system-ui, sans-serif" font-size="12"'


def timeline(
    commits: Iterable[Commit],
    removed: Iterable[tuple[int, float]],
    marks: Mapping[str, float],
    delivered: Iterable[float],
    *,
    begun: float,
    ended: float,
) -> Obj:
    """What the picture needs, in seconds since ``begun``. All times that go in are of one monotonic clock.

    ``removed``: shards whose Service was deleted, and when. ``marks``: what was done, by its words, and when.
    """
    ends = [(one.shard, one.monotonic, one.holder) for one in commits] + [(shard, at, "") for shard, at in removed]
    spans = []
    for shard, group in itertools.groupby(sorted(ends), key=lambda one: one[0]):
        turns = itertools.pairwise([*group, (shard, ended, "")])
        spans += [
            {"shard": shard, "pod": pod, "from": round(at - begun, 3), "to": round(until - begun, 3)}
            for (_, at, pod), (_, until, _) in turns
            if pod
        ]
    counts = [0] * (int((ended - begun) / BIN_S) + 1)
    for at in delivered:
        if begun <= at <= ended:
            counts[int((at - begun) / BIN_S)] += 1
    placed = [{"what": what, "at": round(at - begun, 3)} for what, at in marks.items()]
    return {"seconds": round(ended - begun, 3), "spans": spans, "marks": placed, "delivered": counts}


def svg(timeline: Mapping[str, Any]) -> str:
    """Draw a timeline as an SVG document."""
    pods = sorted({span["pod"] for span in timeline["spans"]}, key=lambda pod: int(pod.rsplit("-", 1)[1]))
    foot = TOP + LANE * len(pods)
    height = foot + STRIP + BOTTOM
    scale = (WIDTH - LEFT - RIGHT) / max(timeline["seconds"], BIN_S)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" {FONT}>',
        "<title>Which Coreapp held which shard during a demo, and the messages that were delivered</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *_lanes(pods),
        *_spans(timeline["spans"], pods, scale),
        *_messages(timeline["delivered"], foot, scale),
        *_marks(timeline["marks"], foot + STRIP, scale),
        *_axis(timeline["seconds"], foot + STRIP, scale),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _lanes(pods: Sequence[str]) -> Iterator[str]:
    for number, pod in enumerate(pods):
        y = TOP + LANE * number
        yield f'<rect x="{LEFT}" y="{y}" width="{WIDTH - LEFT - RIGHT}" height="{BAR}" fill="#f0f1f3"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end" fill="#222">{escape(pod)}</text>'


def _spans(spans: Iterable[Mapping[str, Any]], pods: Sequence[str], scale: float) -> Iterator[str]:
    for span in spans:
        x, width = LEFT + span["from"] * scale, max(1.0, (span["to"] - span["from"]) * scale)
        y = TOP + LANE * pods.index(span["pod"])
        yield f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{COLOURS[span["shard"] % len(COLOURS)]}"/>'
        if width > 52:
            yield f'<text x="{x + 5:.1f}" y="{y + 14}" fill="#ffffff">shard {span["shard"]}</text>'


def _messages(counts: Sequence[int], top: float, scale: float) -> Iterator[str]:
    most = max([*counts, 1])
    yield f'<text x="{LEFT - 8}" y="{top + STRIP - 10}" text-anchor="end" fill="#222">delivered</text>'
    for number, high in ((number, (STRIP - 8) * count / most) for number, count in enumerate(counts) if count):
        x, y, width = LEFT + number * BIN_S * scale, top + STRIP - high, max(0.8, BIN_S * scale - 0.6)
        yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{high:.1f}" fill="#8a94a6"/>'


def _marks(marks: Sequence[Mapping[str, Any]], foot: float, scale: float) -> Iterator[str]:
    for number, mark in enumerate(marks):
        x, y = LEFT + mark["at"] * scale, 16 + 18 * (number % 3)
        aside, anchor = (-4, "end") if x > WIDTH * 0.75 else (4, "start")
        yield f'<line x1="{x:.1f}" y1="{y + 4}" x2="{x:.1f}" y2="{foot}" stroke="#c22f2f" stroke-dasharray="3 3"/>'
        yield f'<text x="{x + aside:.1f}" y="{y + 4}" text-anchor="{anchor}" fill="#c22f2f">{escape(mark["what"])}</text>'


def _axis(seconds: float, foot: float, scale: float) -> Iterator[str]:
    step = next(one for one in (1, 2, 5, 10, 20, 60, 600) if seconds / one <= 12 or one == 600)
    for at in range(0, int(seconds) + 1, step):
        yield f'<text x="{LEFT + at * scale:.1f}" y="{foot + 18}" text-anchor="middle" fill="#555">{at} s</text>'
