"""Keys and certificates of one local control plane: an authority of its own, valid for this folder only."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import trustme

# user, groups: the names that Kubernetes' built-in roles are bound to (documentation "Using RBAC Authorization", core component roles)
CLIENTS = {
    "admin": ("local-admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", None),
    "kube-scheduler": ("system:kube-scheduler", None),
}
SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


@dataclass(frozen=True)
class Certificates:
    """Where the files of one control plane are: ``<name>.crt`` and ``<name>.key`` in one folder, readable by the owner only."""

    folder: Path

    @property
    def authority(self) -> Path:
        """The certificate that signed all others."""
        return self.folder / "ca.crt"

    def certificate(self, name: str) -> Path:
        """PEM certificate of ``server``, of a client, or ``service-account``, which signs tokens."""
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        """Its PEM private key."""
        return self.folder / f"{name}.key"


def make(folder: Path, *, service_ip: str) -> Certificates:
    """The certificates in ``folder``, made if they are not there yet. They appear as a whole or not at all."""
    if not folder.is_dir():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700, parents=True)
        authority = trustme.CA(organization_name="localkube")
        authority.cert_pem.write_to_path(partial / "ca.crt")
        issued = {
            "server": authority.issue_cert(*SERVER_NAMES, "127.0.0.1", service_ip, common_name="kube-apiserver"),
            "service-account": authority.issue_cert("service-account.local"),
        }
        for client, (user, group) in CLIENTS.items():
            issued[client] = authority.issue_cert(f"{client}.local", common_name=user, organization_name=group)
        for name, pair in issued.items():
            pair.cert_chain_pems[0].write_to_path(partial / f"{name}.crt")
            (partial / f"{name}.key").touch(mode=0o600)
            pair.private_key_pem.write_to_path(partial / f"{name}.key")
        partial.rename(folder)
    return Certificates(folder)
