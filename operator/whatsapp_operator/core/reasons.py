"""Every reason that a user can meet, in conditions, Events and metrics: what it means and what to do. docs/reasons.md is made from it.

The first paragraph of each docstring is the meaning, the second what to do.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """One word for one situation. Where it is said (which condition, which status) follows from the tables that use it."""

    ANSWER_UNKNOWN = "AnswerUnknown"
    """Set Shards got no clear answer. Until its outcome is known, only GET is sent. It is settled at `status.operation.settleBy` at the
    latest.

    Wait.
    """
    ASSIGNING_SHARDS = "AssigningShards"
    """Shards without a holder are being given one.

    Wait.
    """
    AWAITING_COREAPPS = "AwaitingCoreapps"
    """A change of the number of shards waits for Coreapps that are not ready.

    If it lasts, make room for the pods that the message names.
    """
    AWAITING_SECRET = "AwaitingSecret"  # noqa: S105  a reason, not a password
    """A Secret that the spec names is not there yet.

    Create it. After 5 seconds `Stalled` says `SecretMissing`.
    """
    BANNED = "Banned"
    """The client reports that the account is banned. The operator cannot lift a ban, and every further call could make it worse.

    Ask Meta's support; create a new cluster for another account.
    """
    BOOTSTRAPPING = "Bootstrapping"
    """The client is being set up for the first time, or deleted objects of the cluster are being created again.

    Wait.
    """
    CERTIFICATE_EXPIRED = "CertificateExpired"
    """The certificate has expired, or expires within a day. An expired certificate gets the account banned.

    Put a new certificate into the Secret, with its `expiresAt`.
    """
    CERTIFICATE_EXPIRES_SOON = "CertificateExpiresSoon"
    """The certificate expires within 30 days.

    Put a new one into the Secret, with its `expiresAt`.
    """
    CERTIFICATE_EXPIRY_UNKNOWN = "CertificateExpiryUnknown"
    """The certificate does not state when it expires, and `expiresAt` does not either. Such a certificate is not sent.

    Set key `expiresAt` of the Secret to the time, such as `2027-05-01T00:00:00Z`.
    """
    CERTIFICATE_MALFORMED = "CertificateMalformed"
    """Key `certificate` is not base64, so WhatsApp would reject it and log the client off.

    Copy the whole certificate again from Business Manager.
    """
    CERTIFICATE_MISSING = "CertificateMissing"
    """Set Shards needs a certificate.

    Copy it from Business Manager into key `certificate`.
    """
    CERTIFICATE_REJECTED = "CertificateRejected"
    """WhatsApp rejected the certificate, and usually logged the client off. The same certificate is not sent again.

    Put the right certificate for this number into the Secret.
    """
    CHANGED_BY_ADMISSION = "ChangedByAdmission"
    """A webhook or another controller changed the named fields. No action is required.

    Nothing if this is intended; otherwise correct the webhook and edit the cluster.
    """
    CHANGE_REJECTED = "ChangeRejected"
    """The API server rejects a change to an object, because of a missing right, a quota, a webhook or its own validation. The change is
    retried.

    Correct what the message names: usually the spec or the operator's rights. If the field is immutable, delete the object with
    `--cascade=orphan`: its pods keep running, and the operator creates it again.
    """
    CLIENT_EXPIRED = "ClientExpired"
    """The client reports that its build has expired. The certificate is not at fault, and the same build is not tried again.

    Set `spec.client.images` to a build that has not expired.
    """
    CONSOLIDATING_SHARDS = "ConsolidatingShards"
    """Shards are being moved to Coreapps that stay, before the others are removed.

    Wait.
    """
    CRD_OUTDATED = "CrdOutdated"
    """The installed CRD drops part of what the operator stores before a Set Shards call. Without it the next leader could repeat the call.

    Apply the CRD of this release.
    """
    DELETING = "Deleting"
    """The cluster is being deleted. Its shards are served until the pods are gone.

    Remove the finalizers that the message names, if their owners do not.
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
    """A foreign finalizer keeps a deleted pod. It occupies its place, so no new pod can be created.

    Ask the owner of the finalizer to remove it, or remove it with `kubectl edit pod`.
    """
    DISCONNECTED = "Disconnected"
    """No Coreapp has a connection to WhatsApp.

    Check in Business Manager whether the client is logged off or banned.
    """
    DRAINING = "Draining"
    """Shards are being moved off a node before it is drained.

    Wait.
    """
    EPOCH_REJECTED = "EpochRejected"
    """The servers have accepted a higher epoch of a shard than any that can be written now, usually before a restore of etcd.

    Reset their fence: [after an etcd restore](failover.md#after-an-etcd-restore).
    """
    FAILING_OVER = "FailingOver"
    """A holder failed, and a standby takes over its shard. The Event names the evidence.

    Wait. Afterwards, find out why the holder failed.
    """
    FIELD_INVALID = "FieldInvalid"
    """A field or annotation is invalid. It is ignored, and everything else goes on.

    Correct what the message names.
    """
    HANDED_OVER = "HandedOver"
    """A shard has another holder.

    Nothing.
    """
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    """A kubelet cannot pull an image. Running pods are not touched.

    Correct the image's name, its tag or `spec.client.imagePullSecrets`.
    """
    INTERNAL_ERROR = "InternalError"
    """A bug in the operator. It tries again.

    Report it with the operator's log.
    """
    LOGGING_IN = "LoggingIn"
    """The operator is asking the Webapp for the number of shards.

    If it lasts, the message says why.
    """
    LOGIN_REJECTED = "LoginRejected"
    """The Webapp accepts neither password, so the operator knows nothing about the client.

    Put the administrator's password into the Secret of `spec.client.adminSecretRef`, or `<name>-admin`.
    """
    NAME_CONFLICT = "NameConflict"
    """An object with a name that the cluster needs is not owned by the cluster. The operator never writes or deletes it.

    Delete or rename that object, or give the cluster another name. If it is the cluster's own and lost its owner reference, put that back:
    it is the same in all objects of the cluster. Do not delete a Secret or a claim of the cluster: that loses the client's password or its
    data. Delete a StatefulSet or Deployment with `--cascade=orphan`, so that its pods keep running.
    """
    NODES_UNREACHABLE = "NodesUnreachable"
    """Nodes are lost. Additional Coreapps replace theirs, and are removed when the nodes are back.

    Repair the node, or delete it.
    """
    NOT_RECONCILED = "NotReconciled"
    """No operator has observed this resource yet.

    Check that an operator runs and watches this namespace.
    """
    NO_SPARES_REQUESTED = "NoSparesRequested"
    """`spec.spares` is 0, so the shard of a failed Coreapp is unserved until that Coreapp is back.

    Nothing.
    """
    NO_SPARE_LEFT = "NoSpareLeft"
    """Every shard is served, but the next failure leaves one unserved.

    `Reconciling` says which Coreapp is missing and why; make room for it.
    """
    NUMBER_IN_USE = "NumberInUse"
    """Another WhatsAppCluster that this operator watches has the same phone number and keeps it, because it reached its shards first or was
    created first. Two registrations of one number end each other, so this cluster does not send Set Shards. Its failovers go on.

    Delete one of the two clusters, or create this one with another number.
    """
    OBJECTS_REJECTED = "ObjectsRejected"
    """The API server rejects an object that the operator must create, because of a quota, a webhook or its own validation.

    Make room in the quota, or correct what the message names.
    """
    PAUSED = "Paused"
    """Changes are on hold because of `spec.paused` or the annotation.

    End the pause when you are done.
    """
    PIN_MALFORMED = "PinMalformed"
    """Key `pin` is not six digits, as the PIN of the two-step verification must be.

    Correct key `pin`, or remove it if there is no PIN.
    """
    PIN_REJECTED = "PinRejected"
    """WhatsApp rejected the PIN, or asks for one. Repeated wrong PINs would lock the number, so the same PIN is not sent again.

    Put the right PIN into key `pin`. To have the same PIN tried again, delete the Secret and create it again.
    """
    PODS_REJECTED = "PodsRejected"
    """The controller cannot create pods: a quota, a priority class, a limit range or a policy prevents it. The message repeats the
    controller's own text.

    Correct what the message names. Kubernetes tries again by itself, after minutes if it has failed for long.
    """
    READ_FAILED = "ReadFailed"
    """The operator cannot read some objects, and it does not write what it cannot read.

    Give the operator its rights back, or correct what the message names.
    """
    REGISTRATION_CLOSED = "RegistrationClosed"
    """WhatsApp reports that registration is closed for this number. The certificate is not at fault.

    Ask Meta's support, then edit the account's Secret, or the spec if there is none.
    """
    REGISTRATION_TOO_OLD = "RegistrationTooOld"
    """More than 7 days after registration, Set Shards without a certificate disconnects the client.

    Copy the certificate from Business Manager into key `certificate`.
    """
    REPLACING_PODS = "ReplacingPods"
    """Coreapps or Webapps are not ready yet, or are being replaced.

    If it lasts, make room for the pods that the message names.
    """
    REPLICAS_OVERRULED = "ReplicasOverruled"
    """Something else, usually a HorizontalPodAutoscaler, sets the number of Coreapps. That number follows from shards and spares, so the
    operator sets it back.

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

    If it lasts, correct the template or undo the edit.
    """
    SCALING_DOWN = "ScalingDown"
    """Coreapps that are no longer needed are being removed.

    Wait.
    """
    SCALING_UP = "ScalingUp"
    """Coreapps are being added.

    Wait.
    """
    SECRET_MALFORMED = "SecretMalformed"  # noqa: S105  a reason, not a password
    """A key of a Secret has the wrong format, such as a line break at its end, DER instead of PEM, or a private key that does not match its
    certificate.

    Correct the key as the message says.
    """
    SECRET_MISSING = "SecretMissing"  # noqa: S105  a reason, not a password
    """A Secret or key that the spec names has not been there for 5 seconds.

    Create it.
    """
    SELF_CHECK_FAILED = "SelfCheckFailed"
    """Most Coreapps are unresponsive at the same time, so the operator does not trust its own observations.

    Check the node and the network of the operator.
    """
    SERVER_BUSY = "ServerBusy"
    """The WhatsApp servers are busy and turned Set Shards away. It is tried again.

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
    """The client has another number of shards than was set, so something else changed it.

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
    """Some spares are missing, but not all.

    As for `NoSpareLeft`, but less urgent.
    """
    SPEC_INVALID = "SpecInvalid"
    """The spec cannot be read, usually because the installed CRD is older than the operator. Nothing is changed.

    Correct the field that is named, or apply the CRD of this release.
    """
    STATUS_REJECTED = "StatusRejected"
    """The API server rejects the status, so the status that you see is out of date.

    Apply the CRD of this release.
    """
    SWITCHOVER_REJECTED = "SwitchoverRejected"
    """The switchover that the annotation requests is not possible. The annotation is removed.

    Correct the annotation as the message says.
    """
    SWITCHOVER_REQUESTED = "SwitchoverRequested"
    """Shards are being moved as the annotation requests.

    Wait.
    """
    UNSERVED = "Unserved"
    """A shard has no holder, and no standby can take it.

    `Reconciling` says which Coreapp is missing and why; make room for it at once.
    """
    UP_TO_DATE = "UpToDate"
    """There is nothing to do, and no action is required.

    Nothing.
    """
    VALID = "Valid"
    """Set Shards could be sent now.

    Nothing.
    """
    VERIFYING = "Verifying"
    """Set Shards was accepted, but the client reports another number of shards: the former one for a moment, or one that something else
    set.

    Wait. If it is not the former number, the message says until when.
    """
    WEBAPP_NOT_RESPONDING = "WebappNotResponding"
    """No Webapp answers the operator. Messages may still get through.

    Read the Webapps' log, and check the network between them and the operator.
    """
    WEBAPP_UNAVAILABLE = "WebappUnavailable"
    """No Webapp is ready, so no messages can be submitted.

    Check the Webapps' pods.
    """
    WINDOW_CLOSED = "WindowClosed"
    """Set Shards waits for a maintenance window; the next one opens at `status.nextWindowAt`.

    Wait, or set the annotation `multiconnect.dev/reshard-now`.
    """
    WINDOW_INVALID = "WindowInvalid"
    """A schedule or time zone is invalid, so the operator does not know when it may send Set Shards.

    Correct `spec.reshard.windows`.
    """
