"""The one error of this package: a sentence that says what failed, where, and what to do."""


class LocalKubeError(Exception):
    """Something a person must read: one clear sentence, no traceback needed. Commands print it and exit with status 1."""
