"""How figures are shown, in the documents and when a program ends: Markdown. Pure: one file in, one piece of text out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from localkube import Obj
from localkube.figures import BASELINE_S, P95_FROM, clock
from localkube.provenance import is_crowded
from outside.ledger import Ledger
from wabiz_sim.gatewaylog import Totals

Row = Mapping[str, Any]

VENDOR_RESHARD = "45-60 s"
COLUMNS = ("n", "p50", "p95", "max", "goal")
RATIO = f"{BASELINE_S:g} s / p95 or max"
NO_COMPLAINT = "The program had nothing to complain of."
FEW = f"A p95 is given from {P95_FROM} samples on; with fewer a goal for it is compared with the maximum."


def markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    rows = [list(heads), ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def origin(figures: Row) -> str:
    """A sentence on where figures come from."""
    run = figures["run"]
    machine, load = run["machine"], run["load"]
    commit, _, dirty = str(run["commit"]).partition(" ")
    crowded = " **The machine was crowded: these are the times of such a machine.**" if is_crowded(run) else ""
    return (
        f"One run of `{run['command']}` on {run['date'][:10]}, commit `{commit[:12]}`{' with changes' if dirty else ''}; "
        f"{machine['cpus']} CPUs ({machine['model']}), {machine['memory_gib']:g} GiB, Linux {machine['kernel']}; "
        f"load {load['begin']:g} when it began, {load['end']:g} when it ended.{crowded}"
    )


def cells(row: Row) -> list[str]:
    """The cells of COLUMNS of a row of a file."""
    remarks = [f"{row['failures']} failed"] if row.get("failures") else []
    if row.get("resumed"):
        remarks.append(f"{len(row['resumed'])} resumed, apart")
    n = f"{row['n']} ({'; '.join(remarks)})" if remarks else str(row["n"])
    spread = [clock(row[name]) if name in row else "-" for name in ("p50", "p95", "max")]
    if row.get("goal") is None:
        return [n, *spread, "-"]
    return [n, *spread, f"{row.get('judged_by', 'p95')} {clock(row['goal'])}{', **missed**' if row.get('met') is False else ''}"]


def listed(sentences: Sequence[str] | None, head: str = "The program complained of:", otherwise: str = NO_COMPLAINT) -> str:
    """What a program complained of, as a list; empty where it is said elsewhere (None)."""
    if sentences is None:
        return ""
    return "\n".join([head, "", *(f"- {sentence}" for sentence in sentences)]) if sentences else otherwise


def messages(figures: Row) -> str:
    """The ledger of a run as a sentence, empty where none was kept. LedgerError when its sums do not agree.

    Of several clusters each figure is added up; databases are shared, and of the longest overlap the longest counts.
    """
    ledgers = list((figures.get("ledgers") or {}).values()) or [figures.get("messages")]
    if not ledgers[0]:
        return ""

    def added(rows: Sequence[Row]) -> Obj:
        names = [name for name in rows[0] if name not in {"totals", "slowest"}]
        return {name: (max if name in {"databases", "longest_overlap"} else sum)(row[name] for row in rows) for name in names}

    return f"Messages: {Ledger(**added(ledgers), totals=Totals(**added([one['totals'] for one in ledgers])))}."


def counts(found: Mapping[str, int]) -> str:
    """Words, and how often each occurred."""
    return ", ".join(f"{word} {count}" for word, count in found.items()) or "-"


def joined(figures: Row, *parts: str, end: str) -> str:
    """Where the figures come from, then paragraphs, and at the end what the program complained of."""
    return "\n\n".join(part for part in (origin(figures), *parts, end) if part) + "\n"


def harm(rows: Mapping[str, Row]) -> tuple[int, int]:
    """How many failovers of healthy holders there were, and how many broken laws."""
    return sum(len(row["wrong_failovers"]) for row in rows.values()), sum(len(row["violations"]) for row in rows.values())


# ------------------------------------------------------------ each program


def demo_block(figures: Row) -> str:
    """What the demo took, next to what the vendor says."""
    steps = [(step["what"], step["seconds"], step["vendor"], step["means"]) for step in figures["steps"]]
    lines = [[what, "-" if seconds is None else clock(seconds), vendor or "-", means] for what, seconds, vendor, means in steps]
    seen = ""
    if figures["two_holders"] is not None:
        seen = (
            f"Two active holders of one shard: seen {sum(figures['two_holders'].values())} times (by a watcher from outside, in the log of "
            "the WhatsApp servers, by every lookup of a shard)."
        )
    simulated = (
        f"The client is a simulator whose restart is shortened to {figures['restart_seconds']:g} s (the vendor's Coreapps take "
        f"{VENDOR_RESHARD}); it sends nothing to WhatsApp."
    )
    end = listed([figures["complaint"]]) if figures.get("complaint") else ""
    return joined(figures, markdown(("step", "measured", "vendor", "which is"), lines), messages(figures), seen, simulated, end=end)


def chaos_block(figures: Row) -> str:
    """What chaos measured."""
    faults, lines = figures["faults"], []
    for row in faults.values():
        what, since = str(row["what"]), row.get("from_possible")
        if since:
            what += f"; from when a handover could be made: p50 {clock(since['p50'])}, max {clock(since['max'])}"
        lines.append([what, *cells(row), row.get("ratio", "-"), counts(row["evidence"]), counts(row["effects"])])
    sent, lost, doubled = (sum(row[name] for row in faults.values()) for name in ("sent", "lost", "doubled"))
    wrong, broken = harm(faults)
    text = (
        f"{len(faults)} faults on {figures['clusters']} clusters of 2 shards and 1 spare, {sent:,} messages: {lost} lost, "
        f"{doubled} doubled; {wrong} wrong failovers, {broken} broken laws. Time runs from the fault to the next message of its "
        f"shard that its sender knows taken, through another Coreapp where a handover is expected. {FEW}"
    )
    table = markdown(("fault", *COLUMNS, RATIO, "evidence", "what the fault did"), lines)
    return joined(figures, text, messages(figures), table, end=listed(figures.get("complaints")))


def bench_block(figures: Row) -> str:
    """What the bench measured."""
    cases = {name: row for name, row in figures["cases"].items() if row.get("n")}
    table = markdown(("from -> to", *COLUMNS, RATIO), [[row["what"], *cells(row), row.get("ratio", "-")] for row in cases.values()])
    left_out = {name: row["not_counted"] for name, row in figures["cases"].items() if row.get("not_counted")}
    notes = [f"{name}: {row['times']} more were not counted: {row['why']}." for name, row in left_out.items()]
    memory = [f"{one['what']}: {one['mib']:.0f} MiB (goal {one['goal']:g} MiB)" for one in figures["memory"].values()]
    held = f"The most that an operator held, {'; '.join(memory)}." if memory else ""
    cost = resizes(cases), writes(figures), held, messages(figures)
    return joined(figures, table, FEW, *notes, *cost, end=listed(figures.get("complaints")))


def plugin_block(figures: Row) -> str:
    """How long the plugin takes."""
    table = markdown(("command", *COLUMNS), [[row["what"], *cells(row)] for row in figures["cases"].values()])
    return joined(figures, table, FEW, end=listed(figures.get("complaints")))


def resizes(cases: Mapping[str, Row]) -> str:
    """What became of the messages that were sent during resizes, and, in a shrink, after the restart."""
    changed = [row for row in cases.values() if "after_restart" in row]
    if not changed:
        return ""
    shards = [one for row in changed for one in row["shards"].values()]
    sent, lost, doubled = sum(row["messages"] for row in changed), sum(one["lost"] for one in shards), sum(one["doubled"] for one in shards)
    shrinks = [row["after_restart"] for name, row in cases.items() if name.startswith("shrink")]
    text = (
        f"In {sum(row['n'] for row in changed)} resizes {sent:,} messages: {lost} lost, {doubled} doubled; those that waited longer than "
        f"the client's restart did so by {clock(max(one['worst'] for one in shards))} at most."
    )
    if shrinks:
        text += (
            f" After the restart, while the surplus pods of a shrink went, {sum(one['messages'] for one in shrinks):,} messages: "
            f"{sum(one['rejected'] for one in shrinks)} rejected, longest wait {clock(max(one['longest_wait'] for one in shrinks))}, "
            f"extra outage {clock(max(one['outage'] for one in shrinks))} (the vendor notes {BASELINE_S:g} s)."
        )
    return text


def writes(figures: Row) -> str:
    """What failovers and the steady state cost."""
    found = figures["writes"]
    failovers = [count for name in ("pod-deleted", "container-killed") if name in found for count in found[name]["writes"]]
    sentences = [f"A failover cost {min(failovers)} to {max(failovers)} API writes."] if failovers else []
    if steady := found.get("steady"):
        sentences.append(f"A cluster to which nothing happened: {steady['writes'][0]} writes in {figures['steady_s']:g} s.")
    return " ".join(sentences)


def scale_block(figures: Row) -> str:
    """What one operator costs with very many clusters."""
    goals = [[name, one["text"], f"{one['goal']}{'' if one['met'] else ', **missed**'}"] for name, one in figures["goals"].items()]
    failovers = [[name, *cells(row)[:-1], row.get("ratio", "-")] for name, row in figures["failovers"].items()]
    rest = (
        f"{figures['clusters']:,} clusters on one operator. Steady for {figures['steady_s']:g} s: {figures['steady_cpu']:.2f} of a core "
        f"(worst 5 s: {figures['steady_cpu_worst']:.2f}), {figures['steady_rss']:.0f} MiB, {figures['steady_writes']} writes; "
        f"during failovers {figures['busy_cpu']:.2f} of a core. "
        f"Beginning with all of them at once: {figures['begin_s']:.0f} s, {figures['begin_cpu_s']:.0f} s of processor, "
        f"{figures['begin_rss']:.0f} MiB at most. Messages: {figures['lost']} lost, {figures['doubled']} doubled."
    )
    tables = markdown(("what", "measured", "goal"), goals), markdown(("failover", *COLUMNS[:-1], RATIO), failovers)
    return joined(figures, rest, *tables, end=listed(figures.get("complaints")))


def e2e_block(figures: Row) -> str:
    """What was measured on kind: faults, and the other changes."""
    rows = figures["faults"]
    faults, others = [], []
    for row in rows.values():
        *times, goal = cells(row)
        if not (row["failover"] or row["goal"] is not None):
            others.append([row["what"], *times])
            continue
        if row["silent"] and goal == "-":
            goal = f"0 rejected{', **missed**' if row['rejected_struck'] else ''}"
        committed = f"{clock(row['committed']['p50'])} / {clock(row['committed']['max'])}" if "committed" in row else "-"
        faults.append([row["what"], counts(row["evidence"]), committed, *times, goal, f"{row['bound']:g} s", row.get("ratio", "-")])
    wrong, broken = harm(rows)
    text = (
        f"{len(rows)} faults and changes in {figures['seconds']:.0f} s, state in {figures.get('database')}: "
        f"{sum(row['rejected_struck'] + row['rejected_others'] for row in rows.values())} attempts rejected, {wrong} failovers "
        f"of healthy holders, {broken} broken laws. Time runs from the fault to the next message of its shard, through a healthy "
        f"Webapp. {FEW}"
    )
    table = markdown(("fault", "evidence", "committed p50 / max", *COLUMNS, "fails beyond", RATIO), faults)
    more = markdown(("change", *COLUMNS[:-1]), others) if others else ""
    missed = listed(figures["missed"], "Goals missed:", "")
    end = listed(figures.get("complaints"), otherwise="Nothing made the run fail.")
    return joined(figures, text, messages(figures), table, more, missed, end=end)


# ------------------------------------------------------------ pages by what is asked of them


def e2e_modes_block(figures: Row) -> str:
    """What was measured on kind, by what fails and what becomes of the messages."""
    faults = {name: row for name, row in figures["faults"].items() if row["failover"] or row["goal"] is not None}
    return modes(figures, faults)


def modes(figures: Row, only: Mapping[str, Row] | None = None) -> str:
    """What was measured of faults, by what fails and what becomes of the messages: those that move a shard, then those that move none."""
    parts, faults = [], figures["faults"] if only is None else only
    for moves, head in ((True, "Another Coreapp takes the shard over:"), (False, "Nothing is handed over:")):
        rows = {name: row for name, row in faults.items() if row["failover"] is moves}
        words = "fault", "what is done", *(["evidence"] if moves else []), "n", "until the next message, p50", "max", "lost", "doubled"
        lines = [[f"`{name}`", row["what"], *([counts(row["evidence"])] if moves else []), *_mode(row)] for name, row in rows.items()]
        parts += [head, markdown(words, lines)] if rows else []
    wrong, broken = harm(faults)
    found = f"{wrong} failovers of healthy holders, {broken} broken laws."
    return joined(figures, *parts, end=found)


def _mode(row: Row) -> list[str]:
    n, p50, _, longest, _ = cells(row)
    return [n, p50, longest, str(row["lost"]), str(row["doubled"])]


BLOCKS: dict[str, Callable[[Row], str]] = {
    "demo": demo_block,
    "chaos": chaos_block,
    "bench": bench_block,
    "scale": scale_block,
    "plugin": plugin_block,
    "e2e": e2e_block,
    "chaos-modes": modes,
    "e2e-modes": e2e_modes_block,
}
"""By file of figures, or file and view: how it is shown."""
