"""The form of the log: text or JSON, with the cluster, the shard and the rule as fields where they are known."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final

TEXT: Final = "%(asctime)s %(levelname).1s %(name)s: %(message)s"
_FIELDS: ContextVar[Mapping[str, str | int]] = ContextVar("log_fields", default={})  # noqa: B039  it is never changed, only replaced


def note(**fields: str | int | None) -> None:
    """Add these fields to each later line of this task and of tasks that it creates; None removes a field."""
    after = {**_FIELDS.get(), **fields}
    _FIELDS.set({name: value for name, value in after.items() if value is not None})


class TextFormatter(logging.Formatter):
    """One line of text, with the fields at its end."""

    def __init__(self) -> None:
        """Use the format that the operator always had."""
        super().__init__(TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the library calls it so
        """Return the line without traceback."""
        return " ".join([super().formatMessage(record), *(f"{name}={value}" for name, value in _FIELDS.get().items())])


class JsonFormatter(logging.Formatter):
    """One JSON object for each line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object: time, level, logger, message, the fields, and the traceback of an error."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_FIELDS.get(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(level: str, form: str) -> None:
    """Write the log of this process to stderr from this level on, as ``text`` or ``json``."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler])
