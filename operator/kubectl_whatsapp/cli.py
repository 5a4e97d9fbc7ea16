"""What all commands share: options, access to the API server, output, and errors."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from kubectl_whatsapp import Obj, access, changes, reading, rights
from kubectl_whatsapp.access import Access, Options
from kubectl_whatsapp.errors import AccessError, RequestError
from kubectl_whatsapp.marks import is_name
from kubectl_whatsapp.reading import Read, Target
from kubectl_whatsapp.shape import Output, dump

if TYPE_CHECKING:
    from kubectl_whatsapp.client import Client

MISUSED: Final = 2
"""Exit code after a wrong option or argument, as usual for commands."""
UNKNOWN: Final = 3
"""Exit code when it is not known whether a change was made."""
FAILED: Final = 4
"""Exit code when a command could not do its work. 0 to 3 are the levels of a verdict."""
NOT_IN_TIME: Final = 5
"""Exit code when what the command waited for did not happen in time."""
SHORTEST: Final = 0.1
"""The shortest time limit for reading, in seconds."""
LONGEST: Final = 86400.0
"""The longest time limit that can be given, in seconds."""

app = typer.Typer(
    name="kubectl whatsapp",
    help="Shows what state a WhatsApp cluster is in, why, and what to do about it, even while the operator or a node is down.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from whatsapp_operator import __version__  # noqa: PLC0415  # nothing else of it is loaded

        print(f"kubectl-whatsapp {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """Define the options before a command."""


class CommandError(Exception):
    """A command could not do its work; the message says why, and what to do."""

    def __init__(self, sentence: str, code: int = FAILED) -> None:
        """``code``: what the process ends with."""
        super().__init__(sentence)
        self.code = code


FAILURES: Final = (CommandError, AccessError, RequestError)
"""Errors with a sentence for the user."""


def fail(sentence: str, code: int = FAILED) -> NoReturn:
    """End the command with a sentence on standard error."""
    raise CommandError(sentence, code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The cluster that a command is about, the access to it, and how to print the answer."""

    access: Access
    client: Client
    target: Target
    output: Output
    seconds: float
    """For all reading together."""
    begun: float
    """When the command began, by the monotonic clock."""

    def read(self, names: Iterable[str] = reading.VERDICT, *, deadline: float | None = None, load: str = "view") -> Read:
        """Read these sources under one deadline. Meanwhile, load the module ``load``, which judges what was read."""
        seconds = self.seconds if deadline is None else deadline
        return reading.read(self.client, self.target, names, deadline=seconds, meanwhile=lambda: self._load(load))

    def read_at_once(self, names: Iterable[str] = reading.VERDICT, *, load: str = "view") -> Read:
        """Read these sources with a deadline that counts from the start of the process, without the time of a credential plugin."""
        spent = time.monotonic() - self.begun - self.access.asked_for
        return self.read(names, deadline=max(reading.LEAST * self.seconds, self.seconds - spent), load=load)

    def cluster(self) -> Obj:
        """Return the WhatsAppCluster; the command fails if it cannot be read."""
        try:
            return changes.read(self.client, self.target)
        except RequestError as error:
            fail(f"WhatsAppCluster {self.target.namespace}/{self.target.name} could not be read: {error}")

    def _load(self, module: str) -> None:
        for name in (module, *(() if self.output.is_for_programs else ("render",))):
            import_module(f"kubectl_whatsapp.{name}")

    def show(self, kind: str, value: Any, text: str | Callable[[ModuleType], Any]) -> None:
        """Print a value: as JSON, as YAML, or as text, which may be made with the module ``render``."""
        if self.output.is_for_programs:
            print(dump(kind, value, self.output))
            return
        from kubectl_whatsapp import render  # noqa: PLC0415  # takes a tenth of a second to load, and --help does not need it

        render.show(text if isinstance(text, str) else text(render))


def seconds(least: float = 0.0) -> Callable[[str], float]:
    """Return a parser for a waiting time in seconds. It rejects numbers outside the limits, nan and inf."""

    def parse(given: str) -> float:
        with suppress(ValueError):
            if least <= (found := float(given)) <= LONGEST:
                return found
        msg = f"{given} is not a number of seconds from {least:g} to {LONGEST:g}."
        raise typer.BadParameter(msg)

    return parse


SHARED: Final[dict[str, Any]] = {
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
    "request_timeout": (
        Annotated[
            float,
            typer.Option(
                "--request-timeout",
                help="Seconds for all reading; the output names what was not answered by then.",
                parser=seconds(SHORTEST),
                metavar="SECONDS",
            ),
        ],
        reading.DEADLINE,
    ),
    "output": (Annotated[Output, typer.Option("--output", "-o", help="Output format.")], Output.TEXT),
}
"""The options of every command, by the name of their parameter, with their defaults."""
_CLUSTER: Final = Annotated[str, typer.Argument(help="Name of the WhatsAppCluster.", metavar="CLUSTER")]
_ANY_CLUSTER: Final = Annotated[str, typer.Argument(help="Name of the WhatsAppCluster (default: all).", metavar="[CLUSTER]")]

Command = Callable[..., int | None]


def command(name: str, *, for_one: bool = True) -> Callable[[Command], Command]:
    """Register a function as a command. It gets a ``Question``, then its own parameters, and returns the exit code.

    This adds the argument CLUSTER and the shared options, and ends the help with the rights that the command needs. ``for_one``: CLUSTER
    is required; otherwise it may be empty.
    """

    def register(function: Command) -> Command:
        own = [*inspect.signature(function, eval_str=True).parameters.values()][1:]
        kind = inspect.Parameter.KEYWORD_ONLY

        def run(ctx: typer.Context, **given: Any) -> int:
            shared = {key: given.pop(key) for key in ("cluster", *SHARED)}
            return function(_question(begun=ctx.obj, **shared), **given) or 0

        parameters = [
            inspect.Parameter("ctx", kind, annotation=typer.Context),
            inspect.Parameter("cluster", kind, annotation=_CLUSTER)
            if for_one
            else inspect.Parameter("cluster", kind, annotation=_ANY_CLUSTER, default=""),
            *(one.replace(kind=kind) for one in own),
            *(inspect.Parameter(key, kind, annotation=annotation, default=default) for key, (annotation, default) in SHARED.items()),
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        app.command(name, help=inspect.getdoc(function), epilog=rights.sentence(name))(run)
        return function

    return register


def sort() -> None:
    """Sort the registered commands in the order of the table of rights."""
    app.registered_commands.sort(key=lambda one: [*rights.NEEDED].index(one.name or ""))


def _question(
    *,
    begun: float,
    cluster: str,
    namespace: str,
    context: str,
    kubeconfig: str,
    operator_namespace: str,
    lease: str,
    request_timeout: float,
    output: Output,
) -> Question:
    found = access.find(Options(context=context, kubeconfig=kubeconfig, namespace=namespace))
    for what, name in (
        ("WhatsAppCluster", cluster or "any"),
        ("namespace", found.namespace),
        ("namespace", operator_namespace),
        ("Lease", lease),
    ):
        if not is_name(name):
            fail(f"{name} cannot be the name of a {what}: names contain only lower-case letters, digits, '-' and '.'.", MISUSED)
    target = Target(found.namespace, cluster, operator_namespace, lease)
    return Question(access=found, client=found.client(), target=target, output=output, seconds=request_timeout, begun=begun)


def note(sentence: str) -> None:
    """Print a sentence that is not part of the result, on standard error."""
    print(sentence, file=sys.stderr, flush=True)
