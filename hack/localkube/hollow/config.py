"""The environment and the folders of a container: what its spec asks for, read from the API and laid out on disk."""

from __future__ import annotations

from pathlib import Path

from localkube import Obj
from localkube.files import PRIVATE, write
from localkube.hollow.kube import Kube, KubeError
from localkube.hollow.spec import ConfigError, Sources, Volume, environment, relocated, volumes


async def configured(
    pod: Obj, container: Obj, *, ip: str, host_ip: str, sources: Sources, kube: Kube, folder: Path, claims: Path
) -> dict[str, str]:
    """The environment of a container, with mount paths turned to folders, whose files are written. Raises ConfigError.

    ``folder`` is for volumes of the pod alone, ``claims`` for those of PersistentVolumeClaims.
    """
    env = environment(pod, container, ip=ip, host_ip=host_ip, sources=sources)
    folders = []
    for volume in volumes(pod, container, sources):
        place = folder / volume.name
        if volume.claim:
            place = claims / await _claim_uid(kube, pod["metadata"]["namespace"], volume.claim)
        _fill(place, volume)
        folders.append((volume.mount_path, str(place)))
    return relocated(env, folders) | {"WABIZ_LISTEN": ip}


async def _claim_uid(kube: Kube, namespace: str, name: str) -> str:
    try:
        claim = await kube.get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}")
    except KubeError as e:
        raise ConfigError(str(e)) from e
    if claim is None:
        raise ConfigError(f'persistentvolumeclaim "{name}" not found')
    return str(claim["metadata"]["uid"])


def _fill(folder: Path, volume: Volume) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, content in volume.files.items():
        write(folder / name, content, mode=PRIVATE)
