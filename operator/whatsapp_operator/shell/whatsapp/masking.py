"""Keeps secrets out of what the client answers. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from .access import Access

STARS = "***"


def secrets_of(access: Access, body: dict[str, Any]) -> Iterator[str]:
    """Yield the secrets of a request, as they are sent: the client may repeat them."""
    for password in (access.password, access.initial_password):
        yield password
        yield base64.b64encode(f"{access.username}:{password}".encode()).decode()
    yield from access.hidden
    yield from (body[name] for name in ("pin", "cert", "new_password") if name in body)


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return a text of the client on one line, with stars for each secret in it and for each long piece of one. Pure."""
    hidden = {form for one in secrets if one for form in (one, " ".join(one.split()), json.dumps(one)[1:-1])}

    def starred(text: str) -> str:
        for secret in sorted(hidden, key=len, reverse=True):
            text = text.replace(secret, STARS)
        return re.sub(r"[\w+/=-]{12,}", lambda piece: STARS if any(piece[0] in secret for secret in hidden) else piece[0], text)

    # Line breaks are removed between the two: a secret may be repeated with them or without.
    return starred(" ".join("".join(char if char.isprintable() else " " for char in starred(text)).split()))
