"""The commands of the plugin: their arguments, options and rights, from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import typer.main

from kubectl_whatsapp import cli, rights
from kubectl_whatsapp.__main__ import MODULES

HEAD = """# Commands of the plugin

<!-- made by `make reference` from operator/kubectl_whatsapp -->

The arguments and options of each command of `kubectl whatsapp`, as in its `--help`. For explanations and examples, see
[kubectl whatsapp](kubectl.md).
"""
SHARED = """
## Options of every command

"""
TABLE = "| | default | meaning |\n| --- | --- | --- |\n"


def page() -> str:
    """Return the page."""
    for module in MODULES:
        import_module(f"kubectl_whatsapp.commands.{module}")
    commands: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]  # it is a group
    parts = [f"\n## {name}\n\n{_text(commands[name])}\n\n{''.join(_table(commands[name]))}" for name in rights.NEEDED]
    shared = "".join(_row(one) for one in commands["status"].params if _is_shared(one))
    return HEAD + "".join(parts) + SHARED + TABLE + shared


def _text(command: Any) -> str:
    usage = " ".join(one.metavar for one in command.params if one.param_type_name == "argument")
    paragraphs = "\n\n".join(" ".join(one.split()) for one in command.help.replace("*", r"\*").split("\n\n"))
    return f"`kubectl whatsapp {command.name} {usage}`\n\n{paragraphs}\n\n{command.epilog}"


def _table(command: Any) -> Iterator[str]:
    own = [one for one in command.params if not _is_shared(one)]
    yield TABLE
    yield from map(_row, own)


def _is_shared(parameter: Any) -> bool:
    return parameter.name in cli.SHARED


def _row(parameter: Any) -> str:
    name = ", ".join(f"`{one}`" for one in parameter.opts) if parameter.param_type_name == "option" else f"`{parameter.metavar}`"
    default = f"{parameter.default:g}" if isinstance(parameter.default, float) else parameter.default
    if default is None or isinstance(default, bool):
        default = ""
    return f"| {name.replace('|', chr(92) + '|')} | {default} | {parameter.help} |\n"
