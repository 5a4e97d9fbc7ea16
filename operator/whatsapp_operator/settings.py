"""The only reader of the environment. What it reads is frozen; whoever needs a setting is handed it."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Self

from .core.model import Tuning

SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class SettingError(Exception):
    """A setting cannot be used; the message says which, what is wrong and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the surroundings say about this process."""

    identity: str
    """Unique per process: two processes of one pod must not pass for one leader."""
    namespace: str
    """Where the Lease lies and the operator runs."""
    watch_namespaces: tuple[str, ...] = ()
    """Namespaces to look after; none means all."""
    kubeconfig: Path | None = None
    """None: the service account of the pod."""
    lease_name: str = "whatsapp-operator"
    lease_seconds: float = 4.0
    renew_deadline_seconds: float = 3.0
    retry_seconds: float = 1.0
    image: str = "whatsapp-operator/wabiz-sim:0.1.0"
    """Image of the stand-in that goes with this release."""
    metrics_port: int = 0
    """Of /metrics and /healthz; 0: neither is served."""
    metrics_host: str = "0.0.0.0"  # noqa: S104  Prometheus and the kubelet ask from elsewhere
    """The address to serve them on; ``::`` where pods have IPv6 only."""
    log_level: str = "INFO"
    tuning: Tuning = field(default_factory=Tuning)

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Self:
        """Read the environment once; SettingError names the variable that is wrong."""
        env = os.environ if env is None else env
        host = env.get("POD_NAME") or socket.gethostname()
        settings = cls(
            identity=f"{host}_{secrets.token_hex(4)}",
            namespace=env.get("POD_NAMESPACE") or _own_namespace(),
            watch_namespaces=tuple(name.strip() for name in env.get("WATCH_NAMESPACES", "").split(",") if name.strip()),
            kubeconfig=Path(env["KUBECONFIG"]) if env.get("KUBECONFIG") else None,
            lease_name=env.get("LEASE_NAME") or "whatsapp-operator",
            lease_seconds=_number(env, "LEASE_SECONDS", 4.0),
            renew_deadline_seconds=_number(env, "LEASE_RENEW_DEADLINE_SECONDS", 3.0),
            retry_seconds=_number(env, "LEASE_RETRY_SECONDS", 1.0),
            metrics_port=_port(env, "METRICS_PORT"),
            metrics_host=env.get("METRICS_HOST") or "0.0.0.0",  # noqa: S104
            log_level=(env.get("LOG_LEVEL") or "INFO").upper(),
            tuning=_tuning(env),
        )
        if not settings.retry_seconds < settings.renew_deadline_seconds < settings.lease_seconds:
            msg = (
                f"LEASE_RETRY_SECONDS ({settings.retry_seconds}) must be below LEASE_RENEW_DEADLINE_SECONDS "
                f"({settings.renew_deadline_seconds}), and that below LEASE_SECONDS ({settings.lease_seconds})."
            )
            raise SettingError(msg)
        if settings.lease_seconds < 3:
            msg = f"LEASE_SECONDS is {settings.lease_seconds:g}; with less than 3 no write (2 s) would ever fit into what is left of it."
            raise SettingError(msg)
        image = env.get("SIMULATOR_IMAGE")
        return replace(settings, image=image) if image else settings


def _own_namespace() -> str:
    try:
        return SERVICE_ACCOUNT_NAMESPACE.read_text(encoding="utf-8").strip()
    except OSError:
        return "default"


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name, "")
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e9:
        msg = f"{name} is {text!r}; it must be a number of at least 0, such as {default:g}."
        raise SettingError(msg)
    return number


def _port(env: Mapping[str, str], name: str) -> int:
    port = _number(env, name, 0)
    if port != int(port) or port > 65535:
        msg = f"{name} is {env[name]!r}; it must be a port, a whole number of 0 to 65535."
        raise SettingError(msg)
    return int(port)


def _tuning(env: Mapping[str, str]) -> Tuning:
    default = Tuning()

    def seconds(name: str, value: timedelta) -> timedelta:
        return timedelta(seconds=_number(env, name, value.total_seconds()))

    return Tuning(
        settle_grace=seconds("SETTLE_GRACE_SECONDS", default.settle_grace),
        call_timeout=seconds("SET_SHARDS_TIMEOUT_SECONDS", default.call_timeout),
        busy_backoff=seconds("BUSY_BACKOFF_SECONDS", default.busy_backoff),
        busy_told_after=int(_number(env, "BUSY_TOLD_AFTER_ATTEMPTS", default.busy_told_after)),
        certificate_margin=seconds("CERTIFICATE_MARGIN_SECONDS", default.certificate_margin),
        rest=seconds("REST_SECONDS", default.rest),
    )
