"""Where a value stands in the CRD. A field is so written once in code: its name, its type, its default and its place."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class At:
    """The place of a field, as metadata of its type (``Annotated[str, At("webapp.tls.serverName")]``)."""

    path: str
    """From the object that the field's class stands for. ``a[].b``: ``b`` of every entry of the list ``a``."""
    required: bool = False
    """Where the object that it stands in is given, it must be there. A field without a default must be there in any case."""
    least: int = 0
    most: int = 86_400
    """Bounds of a number; a day, of seconds. The CRD allows less; an older one may not."""
    unit: timedelta | None = None
    """What a number is a multiple of, if it becomes a time."""
    equals: str | None = None
    """The text that means true, if it becomes a truth value."""
