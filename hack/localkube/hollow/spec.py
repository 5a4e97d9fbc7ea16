"""What a hollow node reads from a pod and a Service: program, environment, volumes, probes, endpoints. Pure: no file, no API call.

The rules are the kubelet's (Kubernetes 1.34, "Define Environment Variables", "Volumes"), as far as pods of the operator need them. What is
not supported is rejected with a sentence that becomes the container's waiting message, as with the kubelet.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from localkube import Obj

Data = Mapping[str, bytes]
Sources = Callable[[str, str], Data | None]
"""Called with a kind (secret, configmap) and a name: the data of that object in the pod's namespace, None if there is none."""

COMPONENTS = ("coreapp", "webapp", "upstream")
_VARIABLE = re.compile(r"\$(\$|\([A-Za-z_.\-][A-Za-z0-9_.\-]*\))")
_KEYED = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_REFERENCES = {"secretKeyRef": "secret", "configMapKeyRef": "configmap"}


class ConfigError(Exception):
    """A container cannot be configured; the text is the message of its waiting state (reason CreateContainerConfigError)."""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """One volume that the main container mounts: an empty folder, unless it has a claim or files."""

    name: str
    mount_path: str
    claim: str = ""
    files: Data = field(default_factory=dict, repr=False)


def component_of(container: Obj) -> str | None:
    """The part of the simulator that a container runs: its command line ends with `wabiz_sim` or `wabiz-sim` and the part; else None."""
    line = [str(word) for word in (*(container.get("command") or ()), *(container.get("args") or ()))]
    is_ours = len(line) > 1 and line[-1] in COMPONENTS and line[-2].rsplit("/", 1)[-1] in {"wabiz_sim", "wabiz-sim"}
    return line[-1] if is_ours else None


def main_container(pod: Obj) -> Obj:
    """The container that a hollow node runs: the first one with a part of the simulator, else simply the first."""
    containers: list[Obj] = pod["spec"]["containers"]
    return next((one for one in containers if component_of(one)), containers[0])


def data_of(kind: str, obj: Obj) -> dict[str, bytes]:
    """The data of a Secret or ConfigMap (`kind`: secret, configmap)."""
    if kind == "configmap":
        return {key: str(value).encode() for key, value in (obj.get("data") or {}).items()}
    return {key: base64.b64decode(value or "") for key, value in (obj.get("data") or {}).items()}


def environment(pod: Obj, container: Obj, *, ip: str, host_ip: str, sources: Sources) -> dict[str, str]:
    """The environment of a container as the kubelet builds it: in order, with `$(NAME)` replaced by what stands before.

    `ip` and `host_ip` answer status.podIP and status.hostIP. Raises ConfigError for a missing Secret, ConfigMap or key that is not
    optional, and for sources that hollow nodes do not know.
    """
    env: dict[str, str] = {}
    for entry in container.get("env") or ():
        name, source = entry["name"], entry.get("valueFrom")
        if source is None:
            env[name] = expanded(entry.get("value") or "", env)
        elif "fieldRef" in source:
            env[name] = _field(pod, source["fieldRef"]["fieldPath"], {"status.podIP": ip, "status.hostIP": host_ip})
        elif (value := _key_value(name, source, sources)) is not None:
            env[name] = value
    return env


def expanded(value: str, env: Mapping[str, str]) -> str:
    """`$(NAME)` replaced by its value; an unknown name is left as it stands and `$$` is one dollar (Kubernetes' dependent variables)."""
    return _VARIABLE.sub(lambda found: "$" if found[1] == "$" else env.get(found[1][1:-1], found[0]), value)


def _key_value(variable: str, source: Obj, sources: Sources) -> str | None:
    field_name = next(iter(source))
    if field_name not in _REFERENCES:
        message = f"environment variable {variable}: hollow nodes know value, fieldRef, secretKeyRef and configMapKeyRef, not {field_name}"
        raise ConfigError(message)
    kind, reference = _REFERENCES[field_name], source[field_name]
    name, key = reference["name"], reference["key"]
    data = sources(kind, name)
    if data is not None and key in data:
        return data[key].decode(errors="replace")
    if reference.get("optional"):
        return None
    raise ConfigError(f'{kind} "{name}" not found' if data is None else f"couldn't find key {key} in {kind} {name}")


def _field(pod: Obj, path: str, addresses: Mapping[str, str]) -> str:
    """The value of a field path of the downward API."""
    meta = pod["metadata"]
    fields = {f"metadata.{name}": meta[name] for name in ("name", "namespace", "uid")}
    fields |= {"spec.nodeName": pod["spec"].get("nodeName", ""), **addresses}
    if path in fields:
        return str(fields[path])
    if keyed := _KEYED.fullmatch(path):
        return str((meta.get(keyed[1]) or {}).get(keyed[2], ""))
    raise ConfigError(f"hollow nodes do not know the field {path}")


def volumes(pod: Obj, container: Obj, sources: Sources) -> list[Volume]:
    """The volumes that a container mounts, longest mount path first, so that the innermost mount wins.

    Other kinds than claims and Secrets (emptyDir, the projected token ...) are an empty folder. ConfigError when a Secret is missing.
    """
    declared = {volume["name"]: volume for volume in pod["spec"].get("volumes") or ()}
    found = []
    for mount in container.get("volumeMounts") or ():
        volume = declared.get(mount["name"], {})
        files: Data | None = {}
        if "secret" in volume and (files := sources("secret", name := volume["secret"]["secretName"])) is None:
            raise ConfigError(f'secret "{name}" not found')
        claim = volume.get("persistentVolumeClaim", {}).get("claimName", "")
        found.append(Volume(name=mount["name"], mount_path=mount["mountPath"].rstrip("/"), claim=claim, files=files or {}))
    return sorted(found, key=lambda volume: len(volume.mount_path), reverse=True)


def relocated(env: Mapping[str, str], folders: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The environment with mount paths at the start of values turned to folders; `folders` are (mount path, folder), innermost first."""

    def moved(value: str) -> str:
        for mount_path, folder in folders:
            if f"{value}/".startswith(f"{mount_path}/"):
                return folder + value[len(mount_path) :]
        return value

    return {name: moved(value) for name, value in env.items()}


def patience(probe: Obj | None) -> float:
    """Seconds for which the kubelet waits for a container that has stopped answering this probe; without a probe it waits forever."""
    if probe is None:
        return float("inf")
    period, failures = probe.get("periodSeconds") or 10, probe.get("failureThreshold") or 3
    return float(period * (failures - 1) + (probe.get("timeoutSeconds") or 1))


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A pod as a Service sees it."""

    name: str
    ip: str
    labels: Mapping[str, str] = field(default_factory=dict)
    ready: bool = True
    leaving: bool = False
    ports: Mapping[str, int] = field(default_factory=dict)


def backends(service: Obj, pods: Iterable[Backend]) -> list[Backend]:
    """The pods that a Service routes to now, by name; none if it has no selector.

    As by the endpointslice controller and kube-proxy: with publishNotReadyAddresses all; otherwise the ready ones that are not terminating,
    and if there is none, those that are terminating but still answer.
    """
    selector = (service["spec"].get("selector") or {}).items()
    chosen = sorted((pod for pod in pods if pod.ip and selector and selector <= pod.labels.items()), key=lambda pod: pod.name)
    if service["spec"].get("publishNotReadyAddresses"):
        return chosen
    return [pod for pod in chosen if pod.ready and not pod.leaving] or [pod for pod in chosen if pod.ready]


def target_port(service: Obj, port: int, pod: Backend) -> int:
    """The pod's port behind a port of the Service (a headless Service maps nothing). Raises LookupError when Service or pod has none."""
    if service["spec"].get("clusterIP") == "None":
        return port
    name = service["metadata"]["name"]
    entry = next((one for one in service["spec"].get("ports") or () if one["port"] == port), None)
    if entry is None:
        raise LookupError(f"service {name} has no port {port}")
    target = entry.get("targetPort", port)
    if isinstance(target, int):
        return target
    if target not in pod.ports:
        raise LookupError(f"service {name}: pod {pod.name} has no port named {target}")
    return pod.ports[target]


def named_ports(pod: Obj) -> dict[str, int]:
    """The named container ports of a pod."""
    return {port["name"]: port["containerPort"] for one in pod["spec"]["containers"] for port in one.get("ports") or () if "name" in port}


def service_name(host: str, namespace: str) -> tuple[str, str]:
    """(namespace, name) of the Service that a host name means in a namespace: `name`, `name.namespace`, `name.namespace.svc...`."""
    name, _, rest = host.partition(".")
    return rest.partition(".")[0] or namespace, name


def is_address(host: str) -> bool:
    """Whether a host is an IP address already."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
