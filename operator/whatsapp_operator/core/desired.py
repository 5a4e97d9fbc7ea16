"""The desired state: the spec of a WhatsAppCluster as frozen values, each with its place in the CRD. The shell reads them by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

from .names import Key, Obj
from .places import At
from .windows import Window

P = ParamSpec("P")
T = TypeVar("T")

SHARD_COUNTS = (1, 2, 4, 8, 16, 32)
"""What Set Shards accepts (client#set-shards)."""
SECOND = timedelta(seconds=1)


# --- the spec --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The WhatsApp account of a cluster, without anything secret."""

    country_code: Annotated[str, At("countryCode")]
    phone_number: Annotated[str, At("phoneNumber")]
    secret_name: Annotated[str | None, At("secretRef.name", required=True)] = None
    registered_at: Annotated[datetime | None, At("registeredAt")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The certificate that the Webapps show, and whether the operator checks it."""

    secret_name: Annotated[str | None, At("secretRef.name", required=True)] = None
    """None: a self-signed one is generated."""
    server_name: Annotated[str | None, At("serverName")] = None
    verifies: Annotated[bool, At("verification", equals="Full")] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The client's container images."""

    coreapp: Annotated[str, At("coreapp")]
    webapp: Annotated[str, At("webapp")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The client's database, by the Secrets that lead to it."""

    secret_name: Annotated[str, At("secretRef.name")]
    tls_secret_name: Annotated[str | None, At("tlsSecretRef.name", required=True)] = None
    """None: connections are not encrypted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSettings:
    """What a user adds to the pods of one kind, as a pod spells it (``spec.coreapp.pod``, ``spec.webapp.pod``)."""

    labels: Annotated[Mapping[str, str], At("labels")] = field(default_factory=dict)
    annotations: Annotated[Mapping[str, str], At("annotations")] = field(default_factory=dict)
    resources: Annotated[Mapping[str, Obj], At("resources")] = field(default_factory=dict)
    env: Annotated[tuple[Obj, ...], At("env")] = ()
    node_selector: Annotated[Mapping[str, str], At("nodeSelector")] = field(default_factory=dict)
    tolerations: Annotated[tuple[Obj, ...], At("tolerations")] = ()
    affinity: Annotated[Obj | None, At("affinity")] = None
    """None: pods of one kind prefer different nodes."""
    spread: Annotated[tuple[Obj, ...] | None, At("topologySpreadConstraints")] = None
    """None: pods of one kind are spread over zones and nodes where possible."""
    priority_class: Annotated[str | None, At("priorityClassName")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebappService:
    """How the Webapps are reached."""

    type: Annotated[str, At("type")] = "ClusterIP"
    annotations: Annotated[Mapping[str, str], At("annotations")] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Switchover:
    """One entry of the annotation ``multiconnect.dev/switchover``: move this shard, to this pod if one is named."""

    shard: int
    to: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Settings of the operator that rules go by; times that a test makes shorter."""

    settle_grace: timedelta = timedelta(seconds=600)
    """How long after the restart window an unanswered Set Shards may still take effect (laws#4)."""
    call_timeout: timedelta = timedelta(seconds=60)
    """Time-out of the Set Shards call (laws#5)."""
    connection: timedelta = timedelta(seconds=5)
    """How long all Coreapps must report a connection, or none, before that counts."""
    missing_holder: timedelta = timedelta(seconds=10)
    """How long a holder may stay away once enough Coreapps are back from a restart (laws#9)."""
    busy_backoff: timedelta = timedelta(seconds=2)
    """First pause after a busy answer of Set Shards; doubles up to a minute, give or take a fifth."""
    busy_reported_after: int = 5
    """Consecutive busy answers after which a Warning is emitted; the attempts continue."""
    certificate_margin: timedelta = timedelta(hours=24)
    """How long before its stated expiry a certificate is no longer sent."""
    ask_fresh: timedelta = timedelta(seconds=5)
    """A number of shards older than this is asked for again before Set Shards or a shrink. Answers may be slow, so it is more than
    ``ask_working``."""
    ask_working: timedelta = timedelta(seconds=2)
    """How often the number of shards is asked for while other work is in progress."""
    ask_busy: timedelta = timedelta(milliseconds=250)
    """How often the number of shards is asked for while a Set Shards call is not settled."""
    ask_steady: timedelta = timedelta(seconds=30)
    """How often the number of shards is asked for when all is quiet (drift)."""
    rest: timedelta = timedelta(seconds=30)
    """Longest pause between two observations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """How Coreapps are asked on their healthcheck port (``spec.failover.probe``)."""

    kind: Annotated[str, At("type")] = "HTTP"
    """``HTTP``, or ``TCP``: a connection that can be made counts as an answer."""
    path: Annotated[str, At("path")] = "/"
    period: Annotated[timedelta, At("periodSeconds", least=1, unit=SECOND)] = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """The desired state of a WhatsAppCluster."""

    key: Key
    uid: str
    generation: int
    shards: Annotated[int, At("shards", least=1, most=32)]
    client: Annotated[str, At("client.type")]
    """Which client runs: ``Simulator``."""
    spares: Annotated[int, At("spares", most=1000)] = 1
    paused: Annotated[bool, At("paused")] = False
    manual: Annotated[bool, At("failover.mode", equals="Manual")] = False
    restart_seconds: Annotated[int, At("client.simulator.restartSeconds")] = 45
    storage: Annotated[str | None, At("client.simulator.storage.size", required=True)] = None
    account: Annotated[Account | None, At("account")] = None
    database: Annotated[Database | None, At("database")] = None
    """None: the simulator keeps its state itself."""
    images: Annotated[Images | None, At("client.images")] = None
    """None: those of this operator's release."""
    pull_secrets: Annotated[tuple[str, ...], At("client.imagePullSecrets[].name")] = ()
    coreapp_pod: Annotated[PodSettings, At("coreapp.pod")] = PodSettings()
    webapps: Annotated[int | None, At("webapp.replicas", most=1000)] = None
    """None: an autoscaler or a person decides; the operator leaves the number unchanged."""
    webapp_pod: Annotated[PodSettings, At("webapp.pod")] = PodSettings()
    webapp_service: Annotated[WebappService, At("webapp.service")] = WebappService()
    admin_secret: Annotated[str | None, At("client.adminSecretRef.name", required=True)] = None
    """The user's Secret of the administrator; None: one is generated."""
    tls: Annotated[Tls, At("webapp.tls")] = Tls()
    windows: Annotated[tuple[Window, ...], At("reshard.windows")] = ()
    restart_timeout: Annotated[timedelta, At("reshard.restartTimeoutSeconds", unit=SECOND)] = timedelta(seconds=180)
    """How long the Coreapps may take to come back after Set Shards."""
    repairs_drift: Annotated[bool, At("reshard.drift", equals="Repair")] = False
    reshard_now: int | None = None
    """The number of shards that may be set outside the windows."""
    invalid: str | None = None
    """Fields with values that are invalid and ignored, and what to write instead; None: there are none."""
    switchovers: tuple[Switchover, ...] = ()
    switchover_text: str = ""
    """The text of the annotation."""
    switchover_problem: str | None = None
    probe: Annotated[Probe, At("failover.probe")] = Probe()
    unhealthy_after: Annotated[timedelta, At("failover.unhealthyAfterSeconds", least=1, unit=SECOND)] = timedelta(seconds=3)
    """How long a running Coreapp may leave probes unanswered before its shard is moved."""
    deleting: bool = False
    finalizers: tuple[str, ...] = ()
    """What Kubernetes waits for before a deletion is done."""
    image: str = "whatsapp-operator/wabiz-sim:dev"
    """The simulator of this operator's release."""
    tuning: Tuning = Tuning()
    derived: dict[Callable[..., Any], tuple[object, Any]] = field(default_factory=dict, init=False, compare=False, repr=False)
    """By function: the last arguments and result of ``derive``."""

    def derive(self, function: Callable[Concatenate[Desired, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``function(self, ...)``, which must be pure. For equal arguments it is the same object again: do not change it."""
        last = self.derived.get(function)
        if last is None or last[0] != (args, kwargs):
            last = self.derived[function] = (args, kwargs), function(self, *args, **kwargs)
        result: T = last[1]
        return result
