"""Every reason that a user can meet, in conditions, Events and metrics: what it means and what to do. docs/reasons.md is made from it.

The first paragraph of each docstring is the meaning, the second what to do.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """One word for one situation. Where it is said (which condition, which status) follows from the tables that use it."""

    ANSWER_UNKNOWN = "AnswerUnknown"
    """Set Shards got no clear answer. Only GET is sent until it is known, at the latest at `status.operation.settleBy`.

    Wait.
    """
    ASSIGNING_SHARDS = "AssigningShards"
    """Shards without a holder get one.

    Wait.
    """
    AWAITING_COREAPPS = "AwaitingCoreapps"
    """A change of shards waits for Coreapps that are not ready.

    If it lasts, make room for the pods that the message names.
    """
    AWAITING_SECRET = "AwaitingSecret"  # noqa: S105  a reason, not a password
    """A Secret that the spec names is not there yet.

    Create it. After 5 seconds `Stalled` says `SecretMissing`.
    """
    BANNED = "Banned"
    """The client said that the account is banned. The operator cannot lift a ban, and every further call could make it worse.

    Ask Meta's support; make a new cluster for another account.
    """
    BOOTSTRAPPING = "Bootstrapping"
    """The client is being set up for the first time; or objects of the cluster that were deleted are made again.

    Wait.
    """
    CERTIFICATE_EXPIRED = "CertificateExpired"
    """Its time is past, or nearer than a day. An expired certificate gets the account banned.

    Put a new certificate into the Secret, with its `expiresAt`.
    """
    CERTIFICATE_EXPIRES_SOON = "CertificateExpiresSoon"
    """The certificate expires within 30 days.

    Put a new one into the Secret, with its `expiresAt`.
    """
    CERTIFICATE_EXPIRY_UNKNOWN = "CertificateExpiryUnknown"
    """The certificate does not state its own expiry, and one whose expiry is not known is not sent.

    Put the time into key `expiresAt`, such as `2027-05-01T00:00:00Z`.
    """
    CERTIFICATE_MALFORMED = "CertificateMalformed"
    """Key `certificate` is not base64, so WhatsApp would reject it and log the client off.

    Copy it again from Business Manager, whole.
    """
    CERTIFICATE_MISSING = "CertificateMissing"
    """Set Shards needs a certificate.

    Copy it from Business Manager into key `certificate`.
    """
    CERTIFICATE_REJECTED = "CertificateRejected"
    """WhatsApp rejected a certificate, and mostly logged the client off. The same one is not sent again.

    Put the right certificate of this number into the Secret.
    """
    CHANGED_BY_ADMISSION = "ChangedByAdmission"
    """A webhook or another controller changed the named fields. Nothing waits for a person.

    Nothing, if that is intended; otherwise correct the webhook and edit the cluster.
    """
    CHANGE_REJECTED = "ChangeRejected"
    """The API server rejects a change of an object, by a missing right, a quota, a webhook or its own rules. It is tried again.

    Correct what the message names: mostly the spec, or the rights of the operator. If it is a field that cannot be
    changed, delete the object with `--cascade=orphan`, so that its pods run on: it is made again.
    """
    CLIENT_EXPIRED = "ClientExpired"
    """The client says that its build has expired. The certificate is not at fault, and the same build is not tried again.

    Set `spec.client.images` to a build that has not expired.
    """
    CONSOLIDATING_SHARDS = "ConsolidatingShards"
    """Shards move to Coreapps that stay, before the others go.

    Wait.
    """
    CRD_OUTDATED = "CrdOutdated"
    """The CRD does not keep the whole intent of a Set Shards call. With half an intent the next leader could repeat the call.

    Apply the CRD of this release.
    """
    DELETING = "Deleting"
    """The cluster is being deleted, and its shards are served until the pods go.

    Remove the finalizers that are named, if their owner does not.
    """
    DELETING_OUTDATED_POD = "DeletingOutdatedPod"
    """A Coreapp was deleted in a roll-out, so that it comes back with the new template.

    Nothing.
    """
    DELETING_UNRESPONSIVE_POD = "DeletingUnresponsivePod"
    """A Coreapp was deleted because it did not answer.

    If it happens again, read its log.
    """
    DELETION_BLOCKED = "DeletionBlocked"
    """A deleted pod stays because of a foreign finalizer, so its place is occupied and no new pod can come.

    Ask the owner of the finalizer to remove it, or remove it by `kubectl edit pod`.
    """
    DISCONNECTED = "Disconnected"
    """No Coreapp has a connection to WhatsApp.

    See in Business Manager whether the client is logged off or banned.
    """
    DRAINING = "Draining"
    """Shards leave a node before it is drained.

    Wait.
    """
    EPOCH_REJECTED = "EpochRejected"
    """The servers have accepted a higher epoch of a shard than any that can be written now, mostly before etcd was restored from a backup.

    Empty their fence: [after an etcd restore](failover.md#after-an-etcd-restore).
    """
    FAILING_OVER = "FailingOver"
    """A holder failed, and a standby takes its shard over. The Event names the evidence.

    Wait. Afterwards, see what ended the holder.
    """
    FIELD_INVALID = "FieldInvalid"
    """A field or annotation cannot be obeyed. It is left out, and all else goes on.

    Correct what the message names.
    """
    HANDED_OVER = "HandedOver"
    """A shard has another holder.

    Nothing.
    """
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    """A kubelet cannot pull an image. Pods that run are not touched.

    Correct name, tag or `spec.client.imagePullSecrets`.
    """
    INTERNAL_ERROR = "InternalError"
    """A fault of the operator. It tries again.

    Report it with the operator's log.
    """
    LOGGING_IN = "LoggingIn"
    """The Webapp is asked for the number of shards.

    If it lasts, read why in the message.
    """
    LOGIN_REJECTED = "LoginRejected"
    """The Webapp accepts neither password, so nothing is known of the client.

    Put the administrator's password into the Secret of `spec.client.adminSecretRef`, or `<name>-admin`.
    """
    NAME_CONFLICT = "NameConflict"
    """An object with a name that the cluster needs is not owned by the cluster. It is never written or deleted.

    Delete or rename that object, or give the cluster another name. If it is the cluster's own and lost its owner reference, put that back:
    it is the same in all objects of the cluster. To delete a Secret would cost the password that the client has, a claim its data. A
    StatefulSet or Deployment is deleted with `--cascade=orphan`, so that its pods run on.
    """
    NODES_UNREACHABLE = "NodesUnreachable"
    """Nodes are lost. More Coreapps replace theirs, and go when the nodes are back.

    Repair the node, or delete it.
    """
    NOT_RECONCILED = "NotReconciled"
    """No operator has observed this resource yet.

    See whether an operator runs that watches this namespace.
    """
    NO_SPARES_REQUESTED = "NoSparesRequested"
    """`spec.spares` is 0, so a failed Coreapp is out until it is back.

    Nothing.
    """
    NO_SPARE_LEFT = "NoSpareLeft"
    """Every shard is served, but the next failure leaves one unserved.

    Read in `Reconciling` which Coreapp is missing and why; make room.
    """
    NUMBER_IN_USE = "NumberInUse"
    """Another WhatsAppCluster that this operator watches has the same phone number, and keeps it: it has reached its shards before this
    one, or was created before it. Two registrations of one number end each other, so this cluster does not send Set Shards. Its failovers
    go on.

    Delete one of the two clusters, or make this one with another number.
    """
    OBJECTS_REJECTED = "ObjectsRejected"
    """The API server rejects an object that must be made, by a quota, a webhook or its own rules.

    Make room in the quota, or correct what the message names.
    """
    PAUSED = "Paused"
    """Changes are held by `spec.paused` or the annotation.

    Take the pause off when you are done.
    """
    PIN_MALFORMED = "PinMalformed"
    """The PIN of the two-step verification has six digits, and key `pin` has not.

    Put it into key `pin`, or remove the key if there is none.
    """
    PIN_REJECTED = "PinRejected"
    """WhatsApp rejected the PIN, or asks for one. Guessing would lock the number, so the same is not sent again.

    Put the right PIN into key `pin`. To have the same tried again, delete the Secret and create it again.
    """
    PODS_REJECTED = "PodsRejected"
    """The controller cannot create pods: a quota, a priority class, a limit range or a policy is in the way. Its own sentence is repeated.

    Correct what the sentence names. Kubernetes tries again by itself, after minutes if it failed for long.
    """
    READ_FAILED = "ReadFailed"
    """The operator cannot read some objects. It does not write what it cannot see.

    Give the operator its rights back, or correct what the message names.
    """
    REGISTRATION_CLOSED = "RegistrationClosed"
    """WhatsApp says that registration is closed for this number. The certificate is not at fault.

    Ask Meta's support, then edit the account's Secret, or the spec if there is none.
    """
    REGISTRATION_TOO_OLD = "RegistrationTooOld"
    """Later than 7 days after registration Set Shards without a certificate disconnects the client.

    Copy the certificate from Business Manager into key `certificate`.
    """
    REPLACING_PODS = "ReplacingPods"
    """Coreapps or Webapps are not ready yet, or are being replaced.

    If it lasts, make room for the pods that the message names.
    """
    REPLICAS_OVERRULED = "ReplicasOverruled"
    """Another party, mostly a HorizontalPodAutoscaler, sets the number of Coreapps. It follows from shards and spares, so it is set back.

    Delete that autoscaler; set `spec.shards` and `spec.spares` instead.
    """
    RESTARTING = "Restarting"
    """Set Shards was accepted, and all Coreapps restart.

    Wait until the deadline.
    """
    RESTART_OVERDUE = "RestartOverdue"
    """Coreapps did not come back by the deadline.

    Read the log of the Coreapps that are named.
    """
    ROLLING_OUT = "RollingOut"
    """The Coreapps get a new pod template, one at a time.

    If it lasts, correct the template or take the edit back.
    """
    SCALING_DOWN = "ScalingDown"
    """Coreapps that are no longer needed are removed.

    Wait.
    """
    SCALING_UP = "ScalingUp"
    """More Coreapps are made.

    Wait.
    """
    SECRET_MALFORMED = "SecretMalformed"  # noqa: S105  a reason, not a password
    """A key of a Secret has a wrong format: a line break at its end, DER instead of PEM, a key that does not fit its certificate.

    Put there what the message says.
    """
    SECRET_MISSING = "SecretMissing"  # noqa: S105  a reason, not a password
    """A Secret or key that the spec names has not been there for 5 seconds.

    Create it.
    """
    SELF_CHECK_FAILED = "SelfCheckFailed"
    """Most Coreapps are unresponsive at the same time, so the operator does not trust its own observations.

    Check its node and network.
    """
    SERVER_BUSY = "ServerBusy"
    """The WhatsApp servers turned Set Shards away, and it is tried again.

    If it lasts, ask Meta's support.
    """
    SERVING = "Serving"
    """Every shard is served.

    Nothing.
    """
    SETTING_SHARDS = "SettingShards"
    """Set Shards is being sent.

    Wait.
    """
    SET_SHARDS_DONE = "SetShardsDone"
    """All Coreapps that stay are back with the new number of shards.

    Nothing.
    """
    SET_SHARDS_SENT = "SetShardsSent"
    """Set Shards was sent: all Coreapps will restart.

    Nothing.
    """
    SHARDS_DRIFTED = "ShardsDrifted"
    """The client has another number of shards than was set, so another party changed it.

    Set `spec.shards` to that number, or `spec.reshard.drift` to `Repair`.
    """
    SIMULATED = "Simulated"
    """The simulator's own account needs no certificate.

    Nothing.
    """
    SPARES_READY = "SparesReady"
    """As many spares are ready as the spec asks for.

    Nothing.
    """
    SPARE_LOST = "SpareLost"
    """Some spares are missing, not all.

    The same as for `NoSpareLeft`, less urgent.
    """
    SPEC_INVALID = "SpecInvalid"
    """The spec cannot be read, mostly because the installed CRD is older than the operator. Nothing is changed.

    Correct the field that is named, or apply the CRD of this release.
    """
    STATUS_REJECTED = "StatusRejected"
    """The API server rejects the status, so what you read is old.

    Apply the CRD of this release.
    """
    SWITCHOVER_REJECTED = "SwitchoverRejected"
    """A switchover that the annotation asks for cannot be made; the annotation is removed.

    Correct the annotation as the message says.
    """
    SWITCHOVER_REQUESTED = "SwitchoverRequested"
    """Shards move as the annotation asks.

    Wait.
    """
    UNSERVED = "Unserved"
    """A shard has no holder, and no standby can take it.

    Read in `Reconciling` which Coreapp is missing and why; make room at once.
    """
    UP_TO_DATE = "UpToDate"
    """There is nothing to do, and nothing waits for a person.

    Nothing.
    """
    VALID = "Valid"
    """Set Shards could be sent.

    Nothing.
    """
    VERIFYING = "Verifying"
    """Set Shards was accepted, and the client reports another number: the former one for a moment, or one that another party set.

    Wait. If it is no former number, the message says until when.
    """
    WEBAPP_NOT_RESPONDING = "WebappNotResponding"
    """No Webapp answers the operator. Messages may pass all the same.

    See the Webapps' log, and check the network between them and the operator.
    """
    WEBAPP_UNAVAILABLE = "WebappUnavailable"
    """No Webapp is ready, so messages cannot be handed in.

    Check the Webapps' pods.
    """
    WINDOW_CLOSED = "WindowClosed"
    """Set Shards waits for a window, which opens at `status.nextWindowAt`.

    Wait, or set annotation `multiconnect.dev/reshard-now`.
    """
    WINDOW_INVALID = "WindowInvalid"
    """A schedule or time zone cannot be understood, so it is not known when Set Shards may be sent.

    Correct `spec.reshard.windows`.
    """
