"""What all commands share: their options, the way to the API server, output, and how they fail."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Final, NoReturn

import typer

from kubectl_whatsapp import BEGUN, access, reading, rights
from kubectl_whatsapp.access import Access, Client, Options
from kubectl_whatsapp.reading import Read, Target
from kubectl_whatsapp.shape import Output, dump

FAILED: Final = 4
"""Exit code when a command could not do its work. 0 to 3 are the levels of a verdict."""
NOT_IN_TIME: Final = 5
"""Exit code when what was waited for did not come."""

app = typer.Typer(
    name="kubectl whatsapp",
    help="What state a WhatsApp cluster is in, why, and what to do about it; also while the operator or a node is gone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class CommandError(Exception):
    """A command could not do its work; the message says why, and what to do."""

    def __init__(self, sentence: str, code: int = FAILED) -> None:
        """``code``: what the process ends with."""
        super().__init__(sentence)
        self.code = code


def fail(sentence: str, code: int = FAILED) -> NoReturn:
    """End the command with a sentence on standard error."""
    raise CommandError(sentence, code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A cluster, the way to it, and how to print what is said of it."""

    access: Access
    client: Client
    target: Target
    output: Output

    def read(self, names: Iterable[str] = reading.VERDICT, *, deadline: float = reading.DEADLINE) -> Read:
        """Read these sources under one deadline."""
        return reading.read(self.client, self.target, names, deadline=deadline)

    def read_at_once(self, names: Iterable[str] = reading.VERDICT) -> Read:
        """Read these sources within a second of the start of the process; a credential plugin's time is not counted."""
        spent = time.monotonic() - BEGUN - self.access.asked_for
        return self.read(names, deadline=max(reading.LEAST, reading.DEADLINE - spent))

    def show(self, kind: str, value: Any, text: Callable[[], Any]) -> None:
        """Print a value: as JSON, as YAML, or what ``text`` returns."""
        if self.output.is_for_programs:
            print(dump(kind, value, self.output))
            return
        from kubectl_whatsapp import render  # noqa: PLC0415  # takes a tenth of a second, which --help need not wait for

        render.show(text())


_SHARED: Final[dict[str, Any]] = {
    "namespace": (Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the cluster (default: the context's).")], ""),
    "context": (Annotated[str, typer.Option("--context", help="Context of the kubeconfig.")], ""),
    "kubeconfig": (Annotated[str, typer.Option("--kubeconfig", help="Path of the kubeconfig.")], ""),
    "operator_namespace": (
        Annotated[
            str, typer.Option("--operator-namespace", envvar="WHATSAPP_OPERATOR_NAMESPACE", help="Namespace in which the operator runs.")
        ],
        reading.OPERATOR_NAMESPACE,
    ),
    "lease": (
        Annotated[str, typer.Option("--lease", envvar="WHATSAPP_OPERATOR_LEASE", help="Name of the operator's Lease: the Helm release's.")],
        reading.LEASE,
    ),
    "output": (Annotated[Output, typer.Option("--output", "-o", help="How to print it.")], Output.TEXT),
}
_CLUSTER: Final = Annotated[str, typer.Argument(help="Name of the WhatsAppCluster.", metavar="CLUSTER")]
_ANY_CLUSTER: Final = Annotated[str, typer.Argument(help="Name of the WhatsAppCluster (default: all).", metavar="[CLUSTER]")]

Command = Callable[..., int | None]


def command(name: str, *, for_one: bool = True) -> Callable[[Command], Command]:
    """Register a function as a command. It gets a ``Question`` first, then its own parameters, and returns the exit code.

    The argument CLUSTER and the options that all commands share are added, and the help ends with the rights that it needs. ``for_one``:
    CLUSTER must be given; else it is empty if it is not.
    """

    def register(function: Command) -> Command:
        own = [*inspect.signature(function, eval_str=True).parameters.values()][1:]
        kind = inspect.Parameter.KEYWORD_ONLY

        def run(**given: Any) -> int:
            shared = {key: given.pop(key) for key in ("cluster", *_SHARED)}
            return function(_question(**shared), **given) or 0

        parameters = [
            inspect.Parameter("cluster", kind, annotation=_CLUSTER)
            if for_one
            else inspect.Parameter("cluster", kind, annotation=_ANY_CLUSTER, default=""),
            *(one.replace(kind=kind) for one in own),
            *(inspect.Parameter(key, kind, annotation=annotation, default=default) for key, (annotation, default) in _SHARED.items()),
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        app.command(name, help=inspect.getdoc(function), epilog=rights.sentence(name))(run)
        return function

    return register


def _question(
    *, cluster: str, namespace: str, context: str, kubeconfig: str, operator_namespace: str, lease: str, output: Output
) -> Question:
    found = access.find(Options(context=context, kubeconfig=kubeconfig, namespace=namespace))
    target = Target(found.namespace, cluster, operator_namespace, lease)
    return Question(access=found, client=found.client(), target=target, output=output)


def note(sentence: str) -> None:
    """Say something that is no result on standard error."""
    print(sentence, file=sys.stderr, flush=True)
