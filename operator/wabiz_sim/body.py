"""Request bodies, parsed so that no body causes an internal error."""

import json
from typing import Any

import aiohttp
from aiohttp import web


class BadBody(ValueError):  # noqa: N818 - it is the sender's fault, and answered by 400
    """A body that cannot be read; the message says why, for the sender."""


async def text_of(request: web.Request) -> str:
    """Return the body as text. BadBody: its encoding or charset is not what the request says, or it ends early."""
    try:
        return await request.text()
    except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, web.RequestPayloadError):
        why = "the body cannot be decoded as its Content-Encoding says"
    except LookupError:
        why = "the body's charset is not known"
    except UnicodeDecodeError:
        why = "the body is not text of its charset"
    raise BadBody(why)


async def json_of(request: web.Request) -> Any:
    """Return the body as JSON; an empty one is an empty object. BadBody: it cannot be read."""
    text = await text_of(request)
    try:
        return json.loads(text or "{}")
    except RecursionError:
        why = "the body is nested too deeply"
    except ValueError:
        why = "the body is not JSON"
    raise BadBody(why)
