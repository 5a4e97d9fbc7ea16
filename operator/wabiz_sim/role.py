"""The last role assignment of a Coreapp, stored durably: it survives the container, not the pod."""

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .epoch import Epoch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Role:
    """Serve ``shard`` with ``epoch``; the client had ``shards`` shards when it was assigned."""

    shard: int
    epoch: Epoch
    shards: int


@dataclass(frozen=True, slots=True)
class Holder:
    """Another Coreapp that serves a shard, and its epoch."""

    address: str
    epoch: Epoch


class RoleNote:
    """The file with the role and the highest known epoch of each shard.

    It is replaced atomically and belongs to one pod uid. It is not forced to disk: after a power cut the operator assigns the role again,
    and the upstream has the fence.
    """

    def __init__(self, folder: Path, uid: str) -> None:
        self._path = folder / "role.json"
        self._uid = uid
        self.role: Role | None = None
        self.known: dict[int, Epoch] = {}
        self._load()

    def note(self, role: Role | None) -> None:
        """Store ``role`` (None: standby) and ``known``.

        Raises OSError when the folder cannot be written.
        """
        self.role = role
        content: dict[str, Any] = {"uid": self._uid, "known": {str(shard): str(epoch) for shard, epoch in self.known.items()}}
        if role is not None:
            content |= {"shard": role.shard, "epoch": str(role.epoch), "shards": role.shards}
        draft = self._path.with_suffix(".new")
        draft.write_text(json.dumps(content), encoding="utf-8")
        os.replace(draft, self._path)

    def _load(self) -> None:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if content["uid"] != self._uid:
                return
            self.known = {int(shard): Epoch.parse(epoch) for shard, epoch in content["known"].items()}
            if "shard" in content:
                self.role = Role(content["shard"], Epoch.parse(content["epoch"]), content["shards"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s is unreadable (%s): starting as standby; the operator assigns the role again", self._path, type(error).__name__)
            self.role, self.known = None, {}
