"""The only reader of the environment. Settings are frozen and passed to the parts that need them."""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self

from whatsapp_operator import __version__
from whatsapp_operator.core.desired import Tuning
from whatsapp_operator.shell.kube.lease import LONGEST

SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LOG_FORMATS = ("text", "json")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class SettingError(Exception):
    """A setting cannot be used; the message names it, what is wrong and what to do."""


class Variable(NamedTuple):
    """A variable of the environment that a setting is read from."""

    name: str
    read: Callable[[str], Any]
    """The value of the setting; ValueError says what the text must be."""
    meaning: str


def _namespace(text: str) -> str:
    if not _LABEL.fullmatch(text.strip()):
        msg = "the name of a namespace, such as whatsapp-operator-system"
        raise ValueError(msg)
    return text.strip()


def _lease_name(text: str) -> str:
    if len(text) > 253 or not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", text):
        msg = "the name of a Lease, such as whatsapp-operator"
        raise ValueError(msg)
    return text


def _namespaces(text: str) -> tuple[str, ...]:
    try:
        return tuple(_namespace(name) for name in text.split(",") if name.strip())
    except ValueError:
        msg = "names of namespaces, separated by commas, such as shop,support"
        raise ValueError(msg) from None


def _number(example: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not 0 <= number < 1e9:
            msg = f"a number of at least 0, such as {example:g}"
            raise ValueError(msg)
        return number

    return read


def _port(text: str) -> int:
    number = float(text) if re.fullmatch(r"\d+(\.0*)?", text) else -1.0
    if not 0 <= number <= 65535:
        msg = "a port, a whole number of 0 to 65535"
        raise ValueError(msg)
    return int(number)


def _log_level(text: str) -> str:
    if text.upper() not in LOG_LEVELS:
        msg = f"one of {', '.join(LOG_LEVELS)}"
        raise ValueError(msg)
    return text.upper()


def _http_address(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]\S*", text):
        msg = "an address of http or https, such as http://collector:4318"
        raise ValueError(msg)
    return text


def _log_format(text: str) -> str:
    if text.lower() not in LOG_FORMATS:
        msg = f"one of {', '.join(LOG_FORMATS)}"
        raise ValueError(msg)
    return text.lower()


def _setting(name: str, default: Any, read: Callable[[str], Any], meaning: str) -> Any:
    return field(default=default, metadata={"variable": Variable(name, read, meaning)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of this process, from its environment. Each one defines its variable and its meaning in ``--help``."""

    identity: str
    """Unique for each process: two processes of one pod must not count as one leader."""
    namespace: str = field(
        metadata={
            "variable": Variable(
                "POD_NAMESPACE",
                _namespace,
                "namespace of the operator and its Lease; must be set outside of a pod (default: the pod's)",
            )
        }
    )
    watch_namespaces: tuple[str, ...] = _setting(
        "WATCH_NAMESPACES", (), _namespaces, "namespaces to manage, separated by commas (default: all)"
    )
    kubeconfig: Path | None = _setting(  # noqa: RUF009  # it returns a field
        "KUBECONFIG", None, Path, "kubeconfig file for the API server (default: the pod's service account)"
    )
    lease_name: str = _setting("LEASE_NAME", "whatsapp-operator", _lease_name, "name of the Lease; only its holder acts")
    lease_seconds: float = _setting("LEASE_SECONDS", 4.0, _number(4.0), "time without a renewal after which a leader is replaced")
    renew_deadline_seconds: float = _setting(
        "LEASE_RENEW_DEADLINE_SECONDS", 3.0, _number(3.0), "time after which a leader that cannot renew its Lease stops acting"
    )
    retry_seconds: float = _setting("LEASE_RETRY_SECONDS", 1.0, _number(1.0), "time between two renewals of the Lease")
    image: str = _setting("SIMULATOR_IMAGE", f"whatsapp-operator/wabiz-sim:{__version__}", str, "image of the simulator")
    metrics_port: int = _setting("METRICS_PORT", 0, _port, "port of /metrics, /healthz and /readyz; 0: do not serve them")
    metrics_host: str = _setting("METRICS_HOST", "::", str, "address on which to serve them; :: includes IPv4")
    log_level: str = _setting("LOG_LEVEL", "INFO", _log_level, f"lowest level that is logged: {', '.join(LOG_LEVELS)}")
    log_format: str = _setting("LOG_FORMAT", "text", _log_format, f"format of the log: {', '.join(LOG_FORMATS)}")
    tracing_endpoint: str | None = _setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        None,
        _http_address,
        "OpenTelemetry collector (OTLP over HTTP) for a trace of each handover",
    )
    tuning: Tuning = field(default_factory=Tuning)

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Self:
        """Read the environment once; SettingError names the variable that is wrong. An empty variable counts as not set."""
        env = os.environ if env is None else env
        given = {setting: _read(env, variable) for setting, variable in _variables(cls) if env.get(variable.name)}
        host = env.get("POD_NAME") or socket.gethostname()
        settings = cls(
            identity=f"{host}_{secrets.token_hex(4)}",
            tuning=Tuning(**{setting: _read(env, variable) for setting, variable in _TUNING.items() if env.get(variable.name)}),
            **{"namespace": given.get("namespace") or _own_namespace(), **given},
        )
        if not 0 < settings.retry_seconds < settings.renew_deadline_seconds < settings.lease_seconds:
            msg = (
                f"LEASE_RETRY_SECONDS ({settings.retry_seconds}) must be above 0 and below LEASE_RENEW_DEADLINE_SECONDS "
                f"({settings.renew_deadline_seconds}), and that below LEASE_SECONDS ({settings.lease_seconds})."
            )
            raise SettingError(msg)
        if not 3 <= settings.lease_seconds <= LONGEST or not settings.lease_seconds.is_integer():
            msg = (
                f"LEASE_SECONDS is {settings.lease_seconds:g}; set a whole number of at least 3, because a write may take 2 s of it, "
                f"and at most {LONGEST}."
            )
            raise SettingError(msg)
        return settings


def _tuned(name: str, setting: str, meaning: str) -> tuple[str, Variable]:
    default = getattr(Tuning(), setting)
    if isinstance(default, timedelta):
        number = _number(default.total_seconds())
        return setting, Variable(name, lambda text: timedelta(seconds=number(text)), meaning)
    whole = _number(default)
    return setting, Variable(name, lambda text: int(whole(text)), meaning)


_TUNING = dict(
    (
        _tuned("SETTLE_GRACE_SECONDS", "settle_grace", "time after the restart in which an unanswered Set Shards may still take effect"),
        _tuned("SET_SHARDS_TIMEOUT_SECONDS", "call_timeout", "time-out of a Set Shards call"),
        _tuned("BUSY_BACKOFF_SECONDS", "busy_backoff", "first pause after the server was busy; it doubles up to a minute"),
        _tuned("BUSY_TOLD_AFTER_ATTEMPTS", "busy_reported_after", "number of attempts after which a Warning reports a busy server"),
        _tuned("CERTIFICATE_MARGIN_SECONDS", "certificate_margin", "how long before its expiry a certificate is no longer sent"),
        _tuned("REST_SECONDS", "rest", "longest time between two observations of a cluster"),
    )
)


def _variables(cls: type[Settings]) -> Iterator[tuple[str, Variable]]:
    return ((one.name, one.metadata["variable"]) for one in fields(cls) if "variable" in one.metadata)


def _read(env: Mapping[str, str], variable: Variable) -> Any:
    try:
        return variable.read(env[variable.name])
    except ValueError as error:
        msg = f"{variable.name} is {env[variable.name]!r}; it must be {error}."
        raise SettingError(msg) from None


def _own_namespace() -> str:
    try:
        return SERVICE_ACCOUNT_NAMESPACE.read_text(encoding="utf-8").strip()
    except OSError:
        # With a default, this process could become a second leader next to the one of an installation in another namespace.
        msg = "POD_NAMESPACE is not set and this is no pod; set it to the namespace of the operator, such as whatsapp-operator-system."
        raise SettingError(msg) from None


def listed() -> str:
    """Return every variable with its meaning and default, as ``--help`` shows them."""
    defaults = {one.name: one.default for one in fields(Settings)}
    lines = [("POD_NAME", "name of the pod, the first half of the identity in the Lease (default: this machine's name)")]
    for setting, variable in _variables(Settings):
        lines.append((variable.name, _with_default(variable.meaning, defaults[setting])))
    for setting, variable in _TUNING.items():
        lines.append((variable.name, _with_default(variable.meaning, getattr(Tuning(), setting))))
    return "\n".join(f"  {name}\n      {text}" for name, text in lines)


def _with_default(meaning: str, default: Any) -> str:
    if isinstance(default, timedelta):
        default = default.total_seconds()
    if isinstance(default, int | float):
        default = f"{default:g}"
    return f"{meaning} (default: {default})" if isinstance(default, str) else meaning
