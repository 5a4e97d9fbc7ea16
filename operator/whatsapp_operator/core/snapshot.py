"""Everything that one observation read, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from .certificate import CertificateFacts
from .names import Obj, Ref
from .reasons import Reason

# --- observed parts ----------------------------------------------------------------------------------------------------


class Evidence(StrEnum):
    """Why a holder is replaced; the value in ``status.recentHandovers`` and in the metrics (docs/failover.md, "Evidence")."""

    POD_DELETED = "PodDeleted"
    POD_DRAINING = "PodDraining"
    NODE_GONE = "NodeGone"
    PROBE_TIMEOUT = "ProbeTimeout"
    NOT_READY = "NotReady"
    POD_FAILED = "PodFailed"
    CONTAINER_TERMINATED = "ContainerTerminated"
    CONNECTION_LOST = "ConnectionLost"
    LABEL_CONFLICT = "LabelConflict"
    REQUESTED = "Requested"
    CONSOLIDATED = "Consolidated"
    RESTART_OVERDUE = Reason.RESTART_OVERDUE.value
    ROLLED_OUT = "RolledOut"
    HOLDER_DISAGREES = "HolderDisagrees"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The answer of a Coreapp on its healthcheck port."""

    shard: int | None = None
    epoch: str | None = None
    shards: int | None = None
    gateway: str = "disconnected"
    fenced: bool = False
    """The servers reject its epoch for good: they have accepted a higher one."""
    version: str | None = None
    uid: str | None = None
    """The uid of the pod that answered; None: it does not say."""
    stopping: bool = False
    """It has got SIGTERM, and serves on. That proves nothing, but a report that changed makes the loop observe: it finds the pod
    deleted although no watch has reported that."""

    def is_of(self, uid: str) -> bool:
        """Return whether the pod with this uid gave it, as far as it says: its address may have passed to another pod."""
        return not self.uid or self.uid == uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Coreapp:
    """One pod of the StatefulSet, and the last report of its Coreapp."""

    name: str
    uid: str
    ordinal: int
    resource_version: str = ""
    node: str | None = None
    ip: str | None = None
    phase: str = "Pending"
    ready: bool = False
    deleting: bool = False
    disrupted: bool = False
    """It is about to go for an external reason: eviction, preemption, a taint (condition DisruptionTarget)."""
    terminated: bool = False
    lost_readiness: bool = False
    """Its container runs, has been ready since it started, and no longer is."""
    revision: str | None = None
    pending_because: str | None = None
    held_by: tuple[str, ...] = ()
    """Finalizers that keep it although it was deleted and nothing of it runs any more."""
    labels: Mapping[str, str] = field(default_factory=dict)
    report: Report | None = None
    broken_at: datetime | None = None
    ended_at: datetime | None = None
    """When its connection last ended, or may have ended while this process stood still; it may be back since. None: it has not."""
    never_responded: bool = False
    """This process probes it and never got an answer. The network of this process may be the cause."""
    unresponsive_since: datetime | None = None
    """Since when it probably does not answer: half-way between its last answer and the first probe that it left unanswered, by this
    process's clock. None: it answered the last one."""

    @property
    def is_running(self) -> bool:
        """Whether its container runs and can be reached, as far as the pod alone shows."""
        return not self.deleting and self.phase == "Running" and not self.terminated and self.broken_at is None and bool(self.ip)

    @property
    def is_ready(self) -> bool:
        """Whether it could serve now, as far as the pod alone shows."""
        return self.ready and self.is_running

    @property
    def epoch_label(self) -> str | None:
        """The epoch label as it was read; a prepare tests that it is still so."""
        return self.labels.get("multiconnect.dev/epoch")

    @property
    def shard_label(self) -> int | None:
        """The shard label, if it is a number."""
        text = self.labels.get("multiconnect.dev/shard", "")
        return int(text) if text.isascii() and text.isdigit() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node and its Lease in kube-node-lease: a second source about a Coreapp that does not answer."""

    name: str
    zone: str | None = None
    ready: bool | None = None
    """As its Ready condition says; None: Unknown, which the control plane writes when the kubelet is silent."""
    leaving: str | None = None
    """Why its pods will soon go: ``cordoned``, or the key of a taint that autoscalers and spot handlers set; None: it stays."""
    gone: bool = False
    """Its object was known and was deleted."""
    out_of_service: bool = False
    """It was declared dead by the taint node.kubernetes.io/out-of-service."""
    renewed_at: datetime | None = None
    """When this process last observed a renewal of its Lease, by its own clock; None: it has no Lease."""
    presumed: bool = False
    """``renewed_at`` is when this process began to watch, not a renewal: the node gets time to show that it is alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """How many targets of this process are unresponsive now, over all clusters; and the lag of this process."""

    targets: int = 0
    """Coreapps that have answered this process, or have left a probe unanswered."""
    unresponsive: int = 0
    """Those whose last probe is unanswered."""
    not_asked: int = 0
    """Those that answered their last probe and were not probed since the others stopped answering: they prove nothing."""
    never_responded: tuple[str | None, ...] = ()
    """The nodes of unresponsive ones that never answered this process although their kubelets, which probe the same port, call them ready;
    a node with several of them appears several times."""
    answering: frozenset[str] = frozenset()
    """Of these nodes, those on which another Coreapp answers."""
    nodes: frozenset[str] = frozenset()
    """The nodes of the unresponsive ones."""
    ready_nodes: frozenset[str] = frozenset()
    """The nodes of unresponsive ones whose kubelets call them ready; used if nodes are not known."""
    lag: timedelta = timedelta(0)
    """How late the event loop of this process was, at worst, within the last seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The Service of one shard: claim and route in one object."""

    shard: int
    name: str
    uid: str
    version: int
    epoch: str | None = None
    holder: str | None = None
    holder_uid: str | None = None
    previous: str | None = None
    evidence: str | None = None
    planned: bool = False
    committed_at: datetime | None = None
    touched: str | None = None
    """The epoch for which its version was last moved, since the last commit."""
    foreign: bool = False
    copied_by: str | None = None
    """A pod that is not a Coreapp of this cluster but that the Service selects, because it was created with a holder's labels."""


class Answer(StrEnum):
    """What is known of the last Set Shards call (``status.operation.answer``)."""

    NONE = "None"
    ACCEPTED = "Accepted"
    BUSY = "Busy"
    REJECTED = "Rejected"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """The intent of a Set Shards call, noted in status before the call (laws#4 and laws#5)."""

    id: str
    to: int
    leader_epoch: int
    started_at: datetime
    settle_by: datetime
    deadline: datetime
    origin: int | None = None
    attempts: int = 1
    answer: Answer = Answer.NONE
    fingerprint: str | None = None
    """That of the certificate that goes with the call."""
    retry_after: timedelta | None = None
    """How long after ``started_at`` the busy client asked to be left alone."""
    uid: str | None = None
    """That of the WhatsAppCluster for which it was noted; None: a release that did not record it noted it."""

    @property
    def logs_on(self) -> bool:
        """Whether the call asks for the number of shards that the client has: it is made to log the client on again."""
        return self.origin == self.to


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The part of status that is remembered, because it cannot be observed."""

    uid: str | None = None
    """That of the WhatsAppCluster to which it belongs."""
    operation: Operation | None = None
    """The Set Shards call that was noted and is not settled."""
    settled_shards: int | None = None
    """The number of shards that was last verified as reached; None: none was yet."""
    rejected_fingerprint: str | None = None
    """That of the certificate that the client rejected last."""
    rejected_before: tuple[str, ...] = ()
    """Those of the certificates that it rejected before, newest first."""
    rejected_because: str | None = None
    """The client's error text for that rejection."""
    logged_off_at: datetime | None = None
    """When a rejection logged the client off; None: none has since a Set Shards was last accepted."""
    rejected_pin: str | None = None
    """Digest of the PIN that was rejected (``objections.pin_of``); None: none since a Set Shards was last accepted."""
    banned_at: datetime | None = None
    """When the client said that the account is banned; None: it never did."""
    expired_build: str | None = None
    """Version and images of the client that said that it has expired."""
    registration_closed_for: str | None = None
    """Version of the account (``objections.account_version``) for which the client said that registration is closed."""


class Rejection(StrEnum):
    """Why a Set Shards call was rejected."""

    CERTIFICATE = "Certificate"
    """The certificate is wrong or missing; that logs the client off."""
    CERTIFICATE_PARAMETER = "CertificateParameter"
    """The certificate could not be read, or is missing; the client was not logged off."""
    PIN = "Pin"
    BANNED = "Banned"
    CLIENT_EXPIRED = "ClientExpired"
    REGISTRATION_CLOSED = "RegistrationClosed"
    OTHER = "Other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A Set Shards call of this very process: still running, or answered."""

    id: str
    answer: Answer | None = None
    not_sent: bool = False
    """It was noted but not sent: too late (laws#5), or no login or connection."""
    detail: str = ""
    rejection: Rejection | None = None
    retry_after: timedelta | None = None
    """For how long a busy client asks not to be called."""
    fingerprint: str | None = None
    secret_version: str | None = None
    """That of the account's Secret with which the call was made."""
    pin_digest: str | None = None
    """That of the PIN that the call carried; None: there was no Secret to take one from."""


class Login(StrEnum):
    """How the last login went."""

    UNTRIED = "Untried"
    DONE = "Done"
    REJECTED = "Rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The answers of the WhatsApp Business API. ``None`` means: not known; it never means: does not exist."""

    shards: int | None = None
    asked_at: datetime | None = None
    """When this process sent the request that ``shards`` answers."""
    asking: bool = False
    login: Login = Login.UNTRIED
    unresponsive_since: datetime | None = None
    problem: str = ""
    login_message: str = ""
    """What the client said about the last login that it rejected, without secrets; empty: nothing, or the login was not sent."""
    is_new_password_rejected: bool = False
    """The client also rejects it as the new password that a first login must set."""
    version: str | None = None
    first_login_at: datetime | None = None
    """When the initial password was accepted: the account is a new one."""
    call: Call | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSecret:
    """Facts about the account's Secret, without its content."""

    missing: str | None = None
    """The name of the missing Secret; None: it exists."""
    version: str | None = None
    """Its resourceVersion: after a closed registration nothing is sent again before it changes."""
    has_certificate: bool = False
    certificate: CertificateFacts | None = None
    """None if there is none, or it is no base64."""
    expires_at: datetime | None = None
    pin_is_valid: bool = True
    pin_digest: str | None = None
    """Digest of key ``pin`` or of its absence: a rejected PIN is not sent again before it changes. None: there is no Secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A StatefulSet or Deployment, as far as its numbers go."""

    uid: str
    resource_version: str
    replicas: int
    ready: int = 0
    revision: str | None = None
    """That of the template that new pods get; None while its controller has not observed the newest one."""
    scaled_by: str | None = None
    """The field manager that last wrote ``replicas``, if it is not this operator; None: not known, or this operator."""
    bumped_for: str | None = None
    """The mark of the Coreapp for which the version was last bumped, or random letters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overruled:
    """Something else scaled the Coreapps, and this process set the number back."""

    by: str
    """The field manager that last scaled them."""
    replicas: int
    """The number that was overruled."""
    times: int
    """How often in a row."""
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverTimes:
    """How long a handover took, in milliseconds."""

    detect: int | None = None
    """From the failure to its detection, where known."""
    commit: int
    """From detection to commit."""
    serve: int | None = None
    """From commit until the new holder had taken the shard; None while it has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of writing one field of an object: as it was desired, as it was before the write, and as it was stored."""

    desired: Any
    before: Any
    stored: Any
    times: int
    """How often in a row it was corrected."""
    at: datetime


@dataclass(frozen=True, slots=True)
class RejectedWrite:
    """The answer of the API server when it last rejected a write of an object, the time, and the generation of the spec."""

    text: str
    at: datetime
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One observation: everything that was read, as one frozen value."""

    now: datetime
    """By a clock that never steps; every time of this process is compared with it."""
    wall: datetime | None = None
    """By the wall clock, which may step; None: the same. For what people read and what has a date of its own."""
    server_time: datetime | None = None
    """By the API server's clock, when it answered last; None: not known."""
    nonce: str
    """Random letters, new for each observation; the random part of epochs and operation ids."""
    leader_epoch: int
    generation: int = 0
    resource_version: str = ""
    status: Obj = field(default_factory=dict)
    objects: Mapping[Ref, Obj] = field(default_factory=dict)
    """Live objects that this cluster owns, for upkeep."""
    name_conflicts: tuple[Ref, ...] = ()
    """Foreign objects with names that this cluster needs."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Kinds of objects that could not be read, and why in the API server's words; empty: they are still being read.

    Such objects are unknown, not absent.
    """
    rejected: Mapping[Ref, RejectedWrite] = field(default_factory=dict)
    """Objects for which the API server just rejected a write under the present spec."""
    denied: str | None = None
    """The API server's error when it rejects another write of this process, such as of labels or of a number, for longer than a moment."""
    written: Mapping[Ref, Mapping[str, Attempt]] = field(default_factory=dict)
    """What was stored of the fields that this process wrote, by object and path."""
    not_kept: tuple[str, ...] = ()
    """Fields of an intent that the API server recently dropped, because its CRD does not have them."""
    pending_pod: str | None = None
    """Which pod of a Webapp or the simulator does not run, and why, in the words of the scheduler or its kubelet; None: none is known."""
    image_problem: str | None = None
    """Which pod waits for which image, in the kubelet's words; None: none does for long."""
    rejected_pods: str | None = None
    """Which pod its controller cannot create, and why in the controller's words; None: none that is known."""
    rejected_coreapp: str | None = None
    """The same for Coreapps alone."""
    overruled: Overruled | None = None
    """The last overruled scaling of the Coreapps, if it is recent."""
    mislabelled: tuple[Obj, ...] = ()
    """Own pods and shard Services that lack labels by which they are found and selected. Such a pod is a Coreapp only if it holds a
    shard."""
    statefulset: Workload | None = None
    webapp: Workload | None = None
    webapps_change: bool = False
    """Webapps of an older template still run, or the Deployment's controller has not observed the newest one."""
    coreapps: tuple[Coreapp, ...] = ()
    """By ordinal, lowest first."""
    routes: tuple[Route, ...] = ()
    record: Record = Record()
    """As it was read from status."""
    client: Client = Client()
    account: AccountSecret | None = None
    checksums: Mapping[Ref, str] = field(default_factory=dict)
    """By workload: that of what its pods take from Secrets now; none if a Secret could not be read, is missing or has something wrong."""
    anchored_for: int | None = None
    """The shards for which this process moved the StatefulSet's resourceVersion, since it last scaled or noted an intent."""
    missing: str | None = None
    """What another Secret that the spec names lacks, named with its field; None: nothing."""
    malformed: str | None = None
    """Which key of which Secret has a wrong form, and what to put there instead; None: none. Never a value."""
    number_kept_by: str | None = None
    """The WhatsAppCluster that keeps the account's number, if it is another one that is known; namespace/name."""
    account_is_new: bool = False
    """The client was set up again since it was last settled; the settled number does not apply to it."""
    nodes: Mapping[str, Node] | None = None
    """By name, recently deleted ones too; None: nodes are not known, because of a missing right or because none was read yet."""
    silence: Silence = Silence()
    ended: frozenset[str] = frozenset()
    """Names of pods that this process deleted and whose successors are not ready yet."""
    committed: tuple[Route, ...] = ()
    """Handovers that this process committed and that status does not contain yet; their Services may have changed since."""
    handover_times: Mapping[str, HandoverTimes] = field(default_factory=dict)
    """By epoch, for the handovers of this process."""
    since: Mapping[str, datetime] = field(default_factory=dict)
    """For each fact that the last plan said to hold: since when it held without a break."""

    @property
    def failed_reads(self) -> dict[str, str]:
        """Kinds of objects that could not be read, and why, without those that are still being read."""
        return {kind: why for kind, why in self.unread.items() if why}
