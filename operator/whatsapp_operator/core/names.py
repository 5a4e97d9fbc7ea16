"""Keys of clusters, references to objects, epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self, TypeAlias

Obj: TypeAlias = Mapping[str, Any]
"""A Kubernetes object as JSON."""


class Ref(NamedTuple):
    """Names one Kubernetes object in the namespace of its cluster."""

    kind: str
    name: str


class Key(NamedTuple):
    """Names one WhatsAppCluster."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Epoch(NamedTuple):
    """Names one attempt at a handover: ``<n>-<random>``; n is the resourceVersion of the Service it will swap."""

    n: int
    random: str

    def __str__(self) -> str:
        return f"{self.n}-{self.random}"

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """Return the epoch that a label or selector spells, or None for anything else."""
        n, _, random = (text or "").partition("-")
        return cls(int(n), random) if random and n.isascii() and n.isdigit() else None
