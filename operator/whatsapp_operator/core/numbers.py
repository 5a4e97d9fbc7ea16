"""Which of several WhatsAppClusters with one phone number may register it: WhatsApp knows one registration for each number. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .names import Key


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Claim:
    """A WhatsAppCluster and its number. Of several with one number, the one that sorts first keeps it."""

    is_new: bool
    """It has not reached its first number of shards; a cluster that has already serves the phone number."""
    created: str
    """As RFC 3339; such times sort as texts."""
    key: Key
    number: str = field(compare=False)
    """Country code and number in digits, after the type of the client: a simulator disturbs no other client."""


def before(claim: Claim, others: Iterable[Claim]) -> Key | None:
    """Return the cluster that keeps the number of ``claim``; None: this one does. ``others`` may hold older claims of the same cluster."""
    first = min((one for one in others if one.number == claim.number and one.key != claim.key), default=claim)
    return first.key if first < claim else None
