"""Evidence counts after just the time that its table names."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from whatsapp_operator.core import evidence
from whatsapp_operator.core.snapshot import Evidence

from .situations import NOW, Situation, seconds, situation
from .test_evidence import OTHER_ROLES, disagreeing, failure, silent, unready
from .witnesses import restarting


def overdue(span: float) -> Situation:
    """So many seconds ago enough Coreapps were back from a Set Shards restart; the holder of shard 0 is not."""
    one = restarting().restarted(4, [1, 2, 3, 4]).with_holder(0, ready=False)
    return one.seeing(since={"EnoughAreBack/4-noted": NOW - seconds(span)})


LASTING: dict[Evidence, Callable[[float], Situation]] = {
    Evidence.PROBE_TIMEOUT: silent,
    Evidence.NOT_READY: unready,
    Evidence.HOLDER_DISAGREES: lambda span: disagreeing(OTHER_ROLES["no shard"], span),
    Evidence.RESTART_OVERDUE: overdue,
}
"""Evidence that must be seen for a while, seen for so many seconds."""


@pytest.mark.parametrize("name", [proof.evidence for proof in evidence.EVIDENCE])
def test_evidence_counts_after_just_the_time_that_its_table_names(name: Evidence) -> None:
    proof = next(proof for proof in evidence.EVIDENCE if proof.evidence is name)
    span = proof.after(situation().desired).total_seconds()
    assert (span > 0) == (proof.evidence in LASTING)
    if span:
        one = LASTING[proof.evidence]
        assert (failure(one(span - 0.1)), failure(one(span))) == (None, proof.evidence)
