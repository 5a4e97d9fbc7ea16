"""The desired state: the spec of a WhatsAppCluster as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from .names import Key, Obj
from .windows import Window

SHARD_COUNTS = (1, 2, 4, 8, 16, 32)
"""What Set Shards accepts (client#set-shards)."""


# --- the spec --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The WhatsApp account of a cluster, without anything secret."""

    country_code: str
    phone_number: str
    secret_name: str | None = None
    registered_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The certificate that the Webapps show, and whether the operator checks it."""

    secret_name: str | None = None
    """None: a self-signed one is generated."""
    server_name: str | None = None
    verifies: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The client's container images."""

    coreapp: str
    webapp: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The client's database, by the Secrets that lead to it."""

    secret_name: str
    tls_secret_name: str | None = None
    """None: connections are not encrypted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSettings:
    """What a user adds to the pods of one kind, as a pod spells it (``spec.coreapp.pod``, ``spec.webapp.pod``)."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    resources: Obj = field(default_factory=dict)
    env: tuple[Obj, ...] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Obj, ...] = ()
    affinity: Obj | None = None
    """None: pods of one kind prefer different nodes."""
    spread: tuple[Obj, ...] | None = None
    """None: pods of one kind are spread over zones and nodes where possible."""
    priority_class: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebappService:
    """How the Webapps are reached."""

    type: str = "ClusterIP"
    annotations: Mapping[str, str] = field(default_factory=dict)


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
    """How long the Coreapps must all say that they have a connection, or none, before that is believed."""
    missing_holder: timedelta = timedelta(seconds=10)
    """How long a holder may stay away once enough Coreapps are back from a restart (laws#9)."""
    busy_backoff: timedelta = timedelta(seconds=2)
    """First pause after a busy answer of Set Shards; doubles up to a minute, give or take a fifth."""
    busy_reported_after: int = 5
    """Consecutive busy answers after which a Warning is emitted; the attempts go on."""
    certificate_margin: timedelta = timedelta(hours=24)
    """How long before its stated expiry a certificate is no longer sent."""
    ask_fresh: timedelta = timedelta(seconds=5)
    """A number of shards older than this is asked for again before Set Shards or a shrink. Answers may be slow, so it is more than
    ``ask_working``."""
    ask_working: timedelta = timedelta(seconds=2)
    """How often the number of shards is asked for while something is done."""
    ask_busy: timedelta = timedelta(milliseconds=250)
    """How often the number of shards is asked for while something is under way."""
    ask_steady: timedelta = timedelta(seconds=30)
    """How often the number of shards is asked for when all is quiet (drift)."""
    rest: timedelta = timedelta(seconds=30)
    """Longest pause between two observations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """How Coreapps are asked on their healthcheck port (``spec.failover.probe``)."""

    kind: str = "HTTP"
    """``HTTP``, or ``TCP``: a connection that can be made counts as an answer."""
    path: str = "/"
    period: timedelta = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """The desired state of a WhatsAppCluster."""

    key: Key
    uid: str
    generation: int
    shards: int
    spares: int = 1
    paused: bool = False
    manual: bool = False
    restart_seconds: int = 45
    storage: str | None = None
    account: Account | None = None
    database: Database | None = None
    """None: the simulator keeps its state itself."""
    images: Images | None = None
    """None: those of this operator's release."""
    pull_secrets: tuple[str, ...] = ()
    coreapp_pod: PodSettings = PodSettings()
    webapps: int | None = None
    """None: an autoscaler or a person decides; the operator leaves the number unchanged."""
    webapp_pod: PodSettings = PodSettings()
    webapp_service: WebappService = WebappService()
    admin_secret: str | None = None
    """The user's Secret of the administrator; None: one is generated."""
    tls: Tls = Tls()
    windows: tuple[Window, ...] = ()
    restart_timeout: timedelta = timedelta(seconds=180)
    """How long the Coreapps may take to come back after Set Shards."""
    repairs_drift: bool = False
    reshard_now: int | None = None
    """The number of shards that may be set outside of the windows."""
    invalid: str | None = None
    """Fields with values that are invalid and ignored, and what to write instead; None: there are none."""
    switchovers: tuple[Switchover, ...] = ()
    switchover_text: str = ""
    """The text of the annotation."""
    switchover_problem: str | None = None
    probe: Probe = Probe()
    unhealthy_after: timedelta = timedelta(seconds=3)
    """How long a running Coreapp may not answer before its shard is moved."""
    deleting: bool = False
    finalizers: tuple[str, ...] = ()
    """What Kubernetes waits for before a deletion is done."""
    image: str = "whatsapp-operator/wabiz-sim:dev"
    """The simulator of this operator's release."""
    tuning: Tuning = Tuning()
