"""The Events that the operator emits: their types, and for what, from the tables and the calls that emit them."""

from __future__ import annotations

from collections import defaultdict

from kubectl_whatsapp import why
from whatsapp_operator.core import report
from whatsapp_operator.core.reasons import Reason

from . import reasons

URGENT = {("Stalled", "True"), ("CertificateValid", "False")}
HEAD = """# Events

<!-- made by `make reference` from core/report.py and core/reasons.py -->

Every Event that the operator emits about a WhatsAppCluster; `kubectl describe wac acme` shows them. Where a condition is named, the Event
is emitted when that condition gets this reason, or another sentence with it; several conditions with one reason make one Event. It is a
Warning when a person must act (`Stalled` is `True` or `CertificateValid` is `False`), and for some reasons always. Where a step is named,
each step makes an Event. What each reason means, and what to do: [reasons](reasons.md).

| reason | type | emitted for |
| --- | --- | --- |
"""


def page() -> str:
    """Return the page."""
    types: dict[Reason, set[str]] = defaultdict(set)
    causes: dict[Reason, list[str]] = defaultdict(list)
    for reason, kinds in reasons.steps():
        types[reason] |= kinds
        causes[reason] = [why.texts()[reason][0].removesuffix(".")]
    for condition, statuses in reasons.by_condition(unobserved=False).items():
        for reason, status in statuses.items():
            if condition != "Events" and reason not in report.NO_EVENT:
                types[reason].add("Warning" if reason in report.WARNINGS or (condition, status) in URGENT else "Normal")
                causes[reason].append(f"`{condition}` is `{status}`")
    return HEAD + "".join(f"| `{one}` | {' or '.join(sorted(types[one]))} | {'; '.join(causes[one])} |\n" for one in sorted(types))
