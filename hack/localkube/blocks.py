"""How files of figures are shown in Markdown. Pure: one file in, one piece of text out."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from localkube.demo import print as demo
from localkube.demo.print import ledger_of
from localkube.figures import BASELINE_S, P95_FROM, clock
from localkube.provenance import is_crowded

Obj = dict[str, Any]
Row = Mapping[str, Any]

WIDTH = 130
COLUMNS = ("n", "p50", "p95", "max", "goal")
RATIO = f"{BASELINE_S:g} s / p95 or max"
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
    remarks = [f"{row['failures']} failed"] * bool(row.get("failures")) + [f"{len(row.get('resumed', ()))} resumed, apart"] * bool(
        row.get("resumed")
    )
    n = f"{row['n']} ({'; '.join(remarks)})" if remarks else str(row["n"])
    spread = [clock(row[name]) if name in row else "-" for name in ("p50", "p95", "max")]
    goal = "-"
    if row.get("goal") is not None:
        met = {True: "", False: ", **missed**", None: ""}[row.get("met")]
        goal = f"{row.get('judged_by', 'p95')} {clock(row['goal'])}{met}"
    return [n, *spread, goal]


def said(sentences: Sequence[str], otherwise: str = "The program had nothing to complain of.") -> str:
    """What a program complained of, as a list."""
    if not sentences:
        return otherwise
    return "The program complained of:\n\n" + "\n".join(f"- {sentence}" for sentence in sentences)


def messages(figures: Row) -> str:
    """The ledger of a run as a sentence, of several clusters added up; empty where none was kept."""
    ledgers = list((figures.get("ledgers") or {}).values()) or [figures.get("messages")]
    return f"Messages: {ledger_of(added(ledgers))}." if ledgers[0] else ""


def added(ledgers: Sequence[Row]) -> Obj:
    """Ledgers added up, each figure by itself; of the longest overlap the longest."""
    first, *rest = ledgers
    sums: Obj = {name: value for name, value in first.items() if name != "totals"}
    totals = dict(first["totals"])
    for one in rest:
        sums |= {name: sums[name] + one[name] for name in sums}
        longest = max(totals["longest_overlap"], one["totals"]["longest_overlap"])
        totals = {name: value + one["totals"][name] for name, value in totals.items()} | {"longest_overlap": longest}
    return sums | {"databases": max(one["databases"] for one in ledgers), "totals": totals}


def counts(found: Mapping[str, int]) -> str:
    """Words and how often each came."""
    return ", ".join(f"{word} {count}" for word, count in found.items()) or "-"


def joined(*parts: str) -> str:
    """Paragraphs."""
    return "\n\n".join(part for part in parts if part) + "\n"


# ------------------------------------------------------------ demo


def demo_block(figures: Row) -> str:
    """What the demo prints at its end."""
    out = io.StringIO()
    demo.show(figures, Console(file=out, width=WIDTH))
    text = "\n".join(line.rstrip() for line in out.getvalue().strip("\n").splitlines())
    return joined(f"```text\n{text}\n```", origin(figures), said([figures["complaint"]] if figures["complaint"] else [], ""))


# ------------------------------------------------------------ chaos


def chaos_rows(faults: Mapping[str, Row]) -> str:
    """Faults as a table."""
    lines = []
    for row in faults.values():
        what = str(row["what"])
        if since := row.get("from_possible"):
            what += f"; from when a handover could be made: p50 {clock(since['p50'])}, max {clock(since['max'])}"
        lines.append([what, *cells(row), row.get("ratio", "-"), counts(row["evidence"]), counts(row["effects"])])
    return markdown(("fault", *COLUMNS, RATIO, "evidence", "what the fault did"), lines)


def chaos_block(figures: Row) -> str:
    """What chaos measured."""
    faults = figures["faults"]
    sums = {name: sum(row[name] for row in faults.values()) for name in ("sent", "lost", "doubled")}
    wrong, broken = (sum(len(row[name]) for row in faults.values()) for name in ("wrong_failovers", "violations"))
    sums_said = (
        f"{len(faults)} faults on {figures['clusters']} clusters of 2 shards and 1 spare, {sums['sent']:,} messages: {sums['lost']} lost, "
        f"{sums['doubled']} doubled; {wrong} wrong failovers, {broken} broken laws. Time runs from the fault to the next message of its "
        f"shard that its sender knows taken, through another Coreapp where a handover is expected. {FEW}"
    )
    table = chaos_rows(faults)
    return joined(origin(figures), sums_said, messages(figures), table, said(figures["complaints"]))


# ------------------------------------------------------------ bench


def bench_block(figures: Row) -> str:
    """What the bench measured."""
    cases = {name: row for name, row in figures["cases"].items() if row.get("n")}
    table = markdown(("from -> to", *COLUMNS, RATIO), [[row["what"], *cells(row), row.get("ratio", "-")] for row in cases.values()])
    notes = [
        f"{name}: {row['not_counted']['times']} more were not counted: {row['not_counted']['why']}."
        for name, row in figures["cases"].items()
        if row.get("not_counted")
    ]
    memory = [f"{one['what']}: {one['mib']:.0f} MiB (goal {one['goal']:g} MiB)" for one in figures["memory"].values()]
    held = f"The most that an operator held, {'; '.join(memory)}." if memory else ""
    return joined(
        origin(figures), table, FEW, *notes, resizes(cases), writes(figures), held, messages(figures), said(figures["complaints"])
    )


def resizes(cases: Mapping[str, Row]) -> str:
    """What became of the messages that were sent during resizes, and after the restart of those that shrink."""
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
            f"{sum(one['refused'] for one in shrinks)} refused, longest wait {clock(max(one['longest_wait'] for one in shrinks))}, "
            f"extra outage {clock(max(one['outage'] for one in shrinks))} (the vendor notes {BASELINE_S:g} s)."
        )
    return text


def writes(figures: Row) -> str:
    """What failovers and the steady state cost."""
    found = figures["writes"]
    failovers = [count for name in ("pod-deleted", "container-killed") if name in found for count in found[name]["writes"]]
    said_ = [f"A failover cost {min(failovers)} to {max(failovers)} API writes."] if failovers else []
    if steady := found.get("steady"):
        said_.append(f"A cluster to which nothing happened: {steady['writes'][0]} writes in {figures['steady_s']:g} s.")
    return " ".join(said_)


# ------------------------------------------------------------ scale


def scale_block(figures: Row) -> str:
    """What one operator costs with very many clusters."""
    goals = [[name, one["text"], f"{one['goal']}{'' if one['met'] else ', **missed**'}"] for name, one in figures["goals"].items()]
    failovers = [[name, *cells(row)[:-1], row.get("ratio", "-")] for name, row in figures["failovers"].items()]
    rest = (
        f"{figures['clusters']:,} clusters on one operator. Steady for {figures['steady_s']:g} s: {figures['steady_cpu']:.2f} of a core "
        f"(worst 5 s: {figures['steady_cpu_worst']:.2f}), {figures['steady_rss']:.0f} MiB, {figures['steady_writes']} writes. "
        f"Beginning with all of them at once: {figures['begin_s']:.0f} s, {figures['begin_cpu_s']:.0f} s of processor, "
        f"{figures['begin_rss']:.0f} MiB at most. Messages: {figures['lost']} lost, {figures['doubled']} doubled."
    )
    heads = ("failover", *COLUMNS[:-1], RATIO)
    return joined(
        origin(figures), rest, markdown(("what", "measured", "goal"), goals), markdown(heads, failovers), said(figures["complaints"])
    )


# ------------------------------------------------------------ e2e


def acts_table(acts: Mapping[str, Row]) -> str:
    """Faults on kind as a table."""
    lines = []
    for row in acts.values():
        goal = cells(row)[-1]
        if row["silent"] and goal == "-":
            goal = f"0 refused{', **missed**' if row['refused_struck'] else ''}"
        committed = f"{clock(row['committed']['p50'])} / {clock(row['committed']['max'])}" if "committed" in row else "-"
        lines.append(
            [row["what"], counts(row["evidence"]), committed, *cells(row)[:-1], goal, f"{row['bound']:g} s", row.get("ratio", "-")]
        )
    return markdown(("fault", "evidence", "committed p50 / max", *COLUMNS, "fails beyond", RATIO), lines)


def e2e_block(figures: Row) -> str:
    """What was measured on kind: faults, and changes."""
    acts = figures["acts"]
    faults = {name: row for name, row in acts.items() if row["failover"] or row["goal"] is not None}
    others = [[row["what"], *cells(row)[:-1]] for name, row in acts.items() if name not in faults]
    refused = sum(row["refused_struck"] + row["refused_others"] for row in acts.values())
    wrong, broken = (sum(len(row[name]) for row in acts.values()) for name in ("wrong_failovers", "violations"))
    sums_said = (
        f"{len(acts)} faults and changes in {figures['seconds']:.0f} s, state in {figures.get('database')}: {refused} tries refused, "
        f"{wrong} failovers of healthy holders, {broken} broken laws. Time runs from the fault to the next message of its shard, through a "
        f"living Webapp. {FEW}"
    )
    table = markdown(("change", *COLUMNS[:-1]), others) if others else ""
    missed = "Goals missed:\n\n" + "\n".join(f"- {one}" for one in figures["missed"]) if figures["missed"] else ""
    end = said(figures["complaints"], "Nothing made the run fail.")
    return joined(origin(figures), sums_said, messages(figures), acts_table(faults), table, missed, end)


BLOCKS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "demo": ("demo", demo_block),
    "chaos": ("chaos", chaos_block),
    "bench": ("bench", bench_block),
    "scale": ("scale", scale_block),
    "e2e": ("e2e", e2e_block),
}
"""Per place in a page: the file of figures, and how it is shown."""
