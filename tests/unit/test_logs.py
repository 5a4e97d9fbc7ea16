"""The log as text and as JSON, with the fields of the task that writes it."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys

from whatsapp_operator.shell import logs
from whatsapp_operator.shell.logs import JsonFormatter, TextFormatter


def a_record(message: str = "ns/acme: %d failed", *args: object, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error is not None else None
    return logging.LogRecord("whatsapp_operator.shell", logging.WARNING, "file.py", 1, message, args or (2,), info)


async def test_fields_are_those_of_the_task() -> None:
    lines: list[str] = []

    async def loop(cluster: str, shard: int | None) -> None:
        logs.note(cluster=cluster, rule="NodeLost")
        logs.note(shard=shard)
        await asyncio.sleep(0)
        lines.append(TextFormatter().format(a_record()))

    await asyncio.gather(loop("ns/acme", 0), loop("ns/other", None))
    assert [line.partition("failed ")[2] for line in lines] == ["cluster=ns/acme rule=NodeLost shard=0", "cluster=ns/other rule=NodeLost"]
    assert TextFormatter().format(a_record()).endswith(" W whatsapp_operator.shell: ns/acme: 2 failed"), "no field of another task"


async def test_a_field_that_no_longer_applies_is_removed() -> None:
    async def loop() -> str:
        logs.note(cluster="ns/acme", rule="NodeLost")
        logs.note(rule=None)
        return TextFormatter().format(a_record())

    assert (await asyncio.create_task(loop())).endswith("failed cluster=ns/acme")


async def test_json_is_one_object_for_each_line() -> None:
    async def loop() -> str:
        logs.note(cluster="ns/acme", shard=3, rule="NodeLost")
        try:
            _ = 1 / 0
        except ZeroDivisionError as error:
            return JsonFormatter().format(a_record("two\nlines: %s", "ü", error=error))
        raise AssertionError

    line = await asyncio.create_task(loop())
    assert "\n" not in line
    found = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert "ZeroDivisionError" in found.pop("traceback")
    assert found == {
        "level": "WARNING",
        "logger": "whatsapp_operator.shell",
        "message": "two\nlines: ü",
        "cluster": "ns/acme",
        "shard": 3,
        "rule": "NodeLost",
    }


def test_the_process_writes_the_form_that_was_chosen() -> None:
    script = "import logging; from whatsapp_operator.shell import logs; logs.configure('INFO', {!r}); logging.info('hello')"
    for form in ("json", "text"):
        done = subprocess.run([sys.executable, "-c", script.format(form)], capture_output=True, text=True, check=True)
        assert (json.loads(done.stderr)["message"] == "hello") if form == "json" else done.stderr.endswith(" I root: hello\n")
