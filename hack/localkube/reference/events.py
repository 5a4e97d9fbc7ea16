"""The Events that the operator emits: their types and causes, from the tables and the calls that emit them."""

from __future__ import annotations

from collections import defaultdict

from kubectl_whatsapp import why
from whatsapp_operator.core import report
from whatsapp_operator.core.reasons import Reason

from . import reasons

URGENT = {("Stalled", "True"), ("CertificateValid", "False")}
HEAD = """# Events

<!-- made by `make reference` from core/report.py and core/reasons.py -->

These are all Events that the operator emits about a WhatsAppCluster; `kubectl describe wac acme` shows them. If the table names a
condition, the operator emits the Event when that condition gets this reason, or a new message with it; several conditions with the same
reason cause only one Event. It is a Warning when a person must act (`Stalled` is `True` or `CertificateValid` is `False`), and always for
some reasons. If the table names a step, each step causes an Event. For what each reason means, and what to do, see [reasons](reasons.md).

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
