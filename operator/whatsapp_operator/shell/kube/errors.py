"""How a call to the API server can fail."""

from __future__ import annotations


class KubeError(Exception):
    """A call failed. The message names verb, object and answer; `code` and `reason` are the server's, if it answered."""

    def __init__(self, message: str, *, code: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class NotFound(KubeError):  # noqa: N818  the answers are named as Kubernetes names them
    """The object (or its kind) does not exist."""


class AlreadyExists(KubeError):  # noqa: N818
    """An object of that name exists already."""


class Conflict(KubeError):  # noqa: N818
    """The object has changed since it was read (resourceVersion or uid differ); nothing was written."""


class TestFailed(KubeError):  # noqa: N818
    """A `test` of the JSON patch, or one of its paths, did not match; nothing was written."""

    __test__ = False  # not a test case, in spite of its name


class Rejected(KubeError):  # noqa: N818
    """The server rejected the call (forbidden, invalid, over quota); nothing was written."""


class Expired(KubeError):  # noqa: N818
    """The resourceVersion to watch from is too old."""


class Unavailable(KubeError):  # noqa: N818
    """No usable answer came in time; it is unknown whether a write happened."""


class LeaseTooShort(KubeError):  # noqa: N818
    """The write was not sent: too little of the Lease is left for it."""
