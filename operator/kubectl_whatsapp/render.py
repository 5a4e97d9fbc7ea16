"""Values as text for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from kubectl_whatsapp.model import Handover, Leader, Level, Operation, Shard, Standby, View
from kubectl_whatsapp.reading import PODS
from kubectl_whatsapp.world import are_ready, counted, stamp

if TYPE_CHECKING:
    from kubectl_whatsapp.checks import Report
    from kubectl_whatsapp.planning import Planned
    from kubectl_whatsapp.why import ShardAnswer, Why

STYLES: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.CRITICAL: "bold red", Level.UNKNOWN: "magenta"}
SERVED: Final = {True: ("served", "green"), False: ("not served", "bold red"), None: ("not known", "magenta")}
HANDOVERS: Final = 3
"""How many handovers are shown, latest first; ``-o wide`` shows all."""
MANY: Final = 8
"""How many shards are shown, those with trouble first; ``-o wide`` shows all."""
NARROW: Final = 72
"""On a terminal with fewer columns, a table is written as lines."""
PIPE: Final = 10_000
"""Number of columns when the output is not a terminal: nothing is wrapped there."""


def show(value: RenderableType) -> None:
    """Print a value. NO_COLOR is honoured. If the output is not a terminal, it has no colour, no wrapping and no trailing blanks."""
    target = Console(highlight=False, emoji=False, markup=False)
    if target.is_terminal:
        target.print(value)
        return
    target.width = PIPE
    with target.capture() as captured:
        target.print(value)
    print("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


def age(since: datetime | None, now: datetime) -> str:
    """Return how long ago this was, in the largest unit that gives at least 2."""
    return "-" if since is None else span(max(0.0, (now - since).total_seconds()))


def span(seconds: float) -> str:
    """Return a duration in the largest unit that gives at least 2."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def verdict(view: View) -> Text:
    """Return only the verdict."""
    return Text.assemble((f"{view.namespace}/{view.name}: ", "bold"), (view.verdict.sentence, STYLES[view.verdict.level]))


# --- tables ---------------------------------------------------------------------------------------------------------------

Cell = str | Text


class Rows:
    """A table that is written as lines if it would not fit."""

    def __init__(self, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """Columns without any content are left out."""
        rows = [*rows]
        kept = [at for at in range(len(columns)) if any(str(row[at]) not in {"", "-"} for row in rows) or at == 0]
        self.columns = [columns[at] for at in kept]
        self.rows = [[row[at] for at in kept] for row in rows]

    def __rich_console__(self, console: Console, _: object) -> Iterator[RenderableType]:
        """Yield the table, or for each row a line with its first cell and indented lines with the others."""
        if console.width >= NARROW:
            yield self._table()
            return
        for first, *cells in self.rows:
            yield Text.assemble((f"{self.columns[0]} ", "bold"), first)
            named = [(name, cell) for name, cell in zip(self.columns[1:], cells, strict=True) if str(cell) not in {"", "-"}]
            yield from (_indented(Text.assemble(f"{name.lower()}: ", cell)) for name, cell in named)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
        for column in self.columns:
            table.add_column(column, overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table


# --- status ---------------------------------------------------------------------------------------------------------------


def status(view: View, *, wide: bool = False) -> RenderableType:
    """Return the output of ``status``: a tree with the verdict as its root. At any width, lines are folded and stay in their branch."""
    tree = Tree(verdict(view), guide_style="dim")
    if view.message and view.message not in view.verdict.sentence:
        tree.add(Text(f"The operator reported {view.reason}: {view.message}"))
    _branch(tree, "Deliberately not done", (Text(sentence, style="yellow") for sentence in view.inaction))
    _branch(tree, _shards_title(view), _shards(view, wide=wide))
    _branch(tree, _standbys_title(view), (_standby(one) for one in view.standbys))
    if view.operation is not None:
        title, *facts = _operation(view.operation, view.at)
        _branch(tree, f"Operation: {title}", map(Text, facts))
    for fact in _facts(view):
        tree.add(Text(fact))
    handovers = view.handovers if wide else view.handovers[:HANDOVERS]
    _branch(tree, f"Last handovers ({len(handovers)} of {len(view.handovers)})", (Text(_handover(one, view.at)) for one in handovers))
    for line in unread(view.unread.items()):
        tree.add(line)
    if view.next_steps:
        # One label, without guides between its lines, so that the lines can be copied.
        tree.add(Text("\n".join(("Next:", *view.next_steps))))
    return tree


def _branch(tree: Tree, title: str, lines: Iterable[Text]) -> None:
    """Add a branch with these leaves. Without a leaf, add it only if the title itself contains information after a colon."""
    leaves = [*lines]
    if leaves or ": " in title:
        branch = tree.add(Text(title, style="bold"))
        for leaf in leaves:
            branch.add(leaf)


def _yes(holds: bool) -> Text:
    return Text("yes", style="green") if holds else Text("no", style="yellow")


def unread(found: Iterable[tuple[str, str]]) -> Iterator[Text]:
    """Yield a line for each thing that could not be read."""
    yield from (Text(f"could not read {what} ({why})", style="magenta") for what, why in found)


def _shards_title(view: View) -> str:
    if view.spec_shards is None:
        return "Shards"
    return f"Shards: {len(view.shards)}; the spec asks for {view.spec_shards}"


def _shards(view: View, *, wide: bool) -> Iterator[Text]:
    few = view.shards if wide else _first_troubled(view.shards)
    for one in few:
        place = ", ".join(_place(one.holder, one.node, one.epoch, one.since, view.at))
        word, style = SERVED[one.served]
        if one.served:
            yield Text.assemble(f"{one.number} ", (word, style), f" by {place}" if place else "")
        else:
            yield Text.assemble(f"{one.number} ", (word, style), f": {one.why}", f" ({place})" if place else "")
    if left := len(view.shards) - len(few):
        yield Text(f"{left} more are served, see -o wide")


def _place(holder: str | None, node: str | None, epoch: str | None, since: datetime | None, now: datetime) -> Iterator[str]:
    if holder:
        yield f"{holder} on {node}" if node else holder
    if epoch:
        yield f"epoch {epoch}"
    if since is not None:
        yield f"for {age(since, now)}"


def _first_troubled(shards: tuple[Shard, ...]) -> tuple[Shard, ...]:
    if len(shards) <= MANY:
        return shards
    troubled = [one for one in shards if not one.served]
    kept = [*troubled, *(one for one in shards if one.served)][: max(MANY, len(troubled))]
    return tuple(sorted(kept, key=lambda one: one.number))


def _standbys_title(view: View) -> str:
    if view.spec_spares is None:
        return "Standbys"
    eligible = f"{sum(one.eligible for one in view.standbys)} of {len(view.standbys)} could take a shard"
    known = "not known" if PODS in view.unread else eligible
    return f"Standbys: {known}; the spec asks for {counted(view.spec_spares, 'spare')}"


def _standby(standby: Standby) -> Text:
    place = f"{standby.pod} on {standby.node}: " if standby.node else f"{standby.pod}: "
    if standby.eligible:
        return Text.assemble(place, ("eligible", "green"))
    return Text.assemble(place, ("not eligible", "yellow"), f" ({standby.why})")


def _operation(operation: Operation, now: datetime) -> Iterator[str]:
    """Yield the step, then the facts about it."""
    yield f"step {operation.number} of {operation.of}, {operation.step}"
    if operation.shards_before != operation.shards_after:
        yield f"shards {operation.shards_before or '?'} -> {operation.shards_after or '?'}"
    if operation.attempts > 1:
        yield f"attempt {operation.attempts}"
    if operation.deadline is not None:
        left = (operation.deadline - now).total_seconds()
        yield f"deadline {stamp(operation.deadline)} ({f'in {span(left)}' if left >= 0 else f'{span(-left)} ago'})"
    if operation.comes_next:
        yield f"then: {'; '.join(operation.comes_next)}"


def _facts(view: View) -> Iterator[str]:
    if view.leader is not None:
        yield f"Operator: {_leader(view.leader, view.at)}"
    if view.certificate_expires is not None:
        yield f"Certificate: expires {view.certificate_expires:%Y-%m-%d}, in {(view.certificate_expires - view.at).days} days"


def _leader(leader: Leader, now: datetime) -> str:
    replicas = f"; {are_ready(leader.replicas_ready, 'replica')}" if leader.replicas_ready is not None else ""
    if not leader.holder:
        return f"no replica leads{replicas}"
    renewed = f"its Lease was renewed {age(leader.renewed, now)} ago" if leader.renewed else "its Lease was never renewed"
    return f"{leader.holder} {'leads' if leader.alive else 'led, but no longer leads'}; {renewed}{replicas}"


def _handover(one: Handover, now: datetime) -> str:
    named = (("detect", one.detect_milliseconds), ("commit", one.commit_milliseconds), ("serve", one.serve_milliseconds))
    phases = "".join(f", {name} {value} ms" for name, value in named if value is not None)
    origin = f" from {one.from_}" if one.from_ else ""
    return f"{age(one.at, now)} ago: shard {one.shard}, {one.kind}{origin} to {one.to} ({one.evidence}){phases}"


# --- why ------------------------------------------------------------------------------------------------------------------


def why(found: Why, *, wide: bool = False) -> RenderableType:
    """Return the output of ``why``."""
    return Group(*_why(found, wide=wide))


def _why(found: Why, *, wide: bool) -> Iterator[RenderableType]:
    title = f"{found.namespace}/{found.name}: "
    if found.problem:
        yield Text.assemble((title, "bold"), (found.problem, "magenta"))
    else:
        yield Text.assemble((title, "bold"), (f"{found.rule} decides. ", "bold"), found.sentence)
        if found.stopped:
            yield Text(found.stopped, style="bold red")
        yield _indented(f"It means: {found.meaning}")
        yield _indented(f"What to do: {found.what_changes_it}")
    if found.shard is not None:
        yield from _shard_answer(found.shard, wide=wide)
    if found.evidence:
        yield Text("Based on:", style="bold")
        yield from map(_indented, found.evidence)
    if found.said_no:
        names = [one.rule for one in found.said_no]
        few = names if wide else names[-6:]
        before = "" if len(few) == len(names) else f"{len(names) - len(few)} rules (-o wide), then "
        yield Text(f"Rules above that do not hold: {before}{', '.join(few)}")
    yield from (Text(f"Also holds: {one.rule}. {one.why}") for one in found.also)
    if found.reported:
        yield Text(f"The operator reported {found.reported}")
        if found.problem and found.reported_advice:
            yield _indented(f"What to do: {found.reported_advice}")
    if found.differs:
        yield Text(f"That differs from this result. {found.differs}", style="yellow")
    if found.granted and (wide or found.differs):
        yield Text("Assumed, because only the operator can know it:", style="bold")
        yield from map(_indented, found.granted)
    yield from unread((found.unread or {}).items())


def _indented(text: Text | str) -> Padding:
    return Padding(Text(text) if isinstance(text, str) else text, (0, 0, 0, 2), expand=False)


def _shard_answer(found: ShardAnswer, *, wide: bool) -> Iterator[RenderableType]:
    yield Text.assemble((f"Shard {found.shard}: ", "bold"), f"{found.state}. " if found.state else "", found.sentence)
    speaks = [one for one in found.evidence if one.holds]
    silent = [one.evidence for one in found.evidence if not one.holds]
    yield from (_indented(f"{one.evidence} holds ({one.certainty.lower()})") for one in speaks)
    if silent and (wide or not speaks):
        yield _indented(f"does not hold: {', '.join(silent)}")
    if found.candidates:
        yield Rows(("COULD TAKE IT", "ELIGIBLE", "WHY NOT"), [(one.pod, _yes(one.eligible), one.why) for one in found.candidates])


# --- plan and check -------------------------------------------------------------------------------------------------------


def plan(found: Planned) -> RenderableType:
    """Return the output of ``plan``."""
    return Group(*_plan(found))


def _plan(found: Planned) -> Iterator[RenderableType]:
    yield Text.assemble((f"{found.namespace}/{found.name}: ", "bold"), found.sentence)
    yield from (Text(f"Rejected: {one}", style="bold red") for one in found.rejected)
    yield from (Text(f"Held: {one}", style="yellow") for one in found.held)
    if found.accepted and not found.steps:
        yield Text("Nothing would change.")
    if found.steps:
        rows = [(str(number), one.what, one.interrupts, one.takes) for number, one in enumerate(found.steps, 1)]
        yield Rows(("STEP", "WHAT", "INTERRUPTS", "TAKES"), rows)
    yield from (Text(one) for one in found.needs)
    yield from unread(found.unread.items())


def check(found: Report, *, short: bool = False) -> RenderableType:
    """Return one line for each check; ``short``: only for those that did not pass."""
    marks = {Level.OK: "ok", Level.WARNING: "warning", Level.CRITICAL: "failed", Level.UNKNOWN: "unknown"}
    shown = [one for one in found.checks if not short or one.level is not Level.OK]
    lines = [
        Text.assemble(
            (f"{marks[one.level]:8}", STYLES[one.level]),
            one.name,
            ": ",
            one.sentence,
            f" See {one.hint}" if one.level is not Level.OK else "",
        )
        for one in shown
    ]
    return Group(*lines, Text(found.sentence, style="bold"))
