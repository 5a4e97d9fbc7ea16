"""Keys of clusters, references to objects, epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self, TypeAlias

Obj: TypeAlias = Mapping[str, Any]
"""A Kubernetes object as JSON."""


LONGEST_VERSION: Final = 30
"""Digits of the longest resourceVersion that is read. A Coreapp may report thousands of digits, and Python reads no such number."""


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
        is_number = n.isascii() and n.isdigit() and len(n) <= LONGEST_VERSION
        return cls(int(n), random) if random and is_number else None
