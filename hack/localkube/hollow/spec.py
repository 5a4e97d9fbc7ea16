"""What a hollow node reads out of a pod and a Service: which program, environment, volumes, probes, backends. Pure: no file, no API call.

The words and rules are the kubelet's (Kubernetes 1.34, "Define Environment Variables", "Volumes"); what is not supported is refused with a
sentence that ends up as the container's waiting message, as the kubelet does.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

Obj = dict[str, Any]
Data = Mapping[str, bytes]

COMPONENTS = ("coreapp", "webapp", "upstream")
_VARIABLE = re.compile(r"\$(\$|\([A-Za-z_.\-][A-Za-z0-9_.\-]*\))")
_KEYED = re.compile(r"^metadata\.(labels|annotations)\['(?P<key>[^']+)'\]$")


class ConfigError(Exception):
    """A container cannot be configured; the text is the message of its waiting state (reason CreateContainerConfigError)."""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """One volume that the main container mounts: where in the container, and what is to be there."""

    name: str
    mount_path: str
    sub_path: str = ""
    kind: str = "emptyDir"  # emptyDir | claim | files
    claim: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where Secrets and ConfigMaps come from: each returns the data of the object of that name in the pod's namespace, or None."""

    secret: Callable[[str], Data | None]
    config_map: Callable[[str], Data | None]


def component_of(container: Obj) -> str | None:
    """The part of the simulator that a container runs: its command line ends with `wabiz_sim` or `wabiz-sim` and the part; else None."""
    line = [*(container.get("command") or []), *(container.get("args") or [])]
    if len(line) < 2 or line[-1] not in COMPONENTS:
        return None
    program = str(line[-2]).rsplit("/", 1)[-1]
    return str(line[-1]) if program in {"wabiz_sim", "wabiz-sim"} else None


def main_container(pod: Obj) -> Obj:
    """The container that a hollow node gives life to: the first that runs a part of the simulator, else simply the first."""
    containers: list[Obj] = pod["spec"]["containers"]
    return next((one for one in containers if component_of(one)), containers[0])


def secret_data(secret: Obj) -> dict[str, bytes]:
    """The decoded data of a Secret."""
    return {key: base64.b64decode(value or "") for key, value in (secret.get("data") or {}).items()}


def config_map_data(config_map: Obj) -> dict[str, bytes]:
    """The data of a ConfigMap, text and binary together, as bytes."""
    found = {key: str(value).encode() for key, value in (config_map.get("data") or {}).items()}
    try:
        return found | {key: base64.b64decode(value or "") for key, value in (config_map.get("binaryData") or {}).items()}
    except binascii.Error as e:  # the API server checks this; a fake one may not
        message = f"configmap {config_map['metadata']['name']!r} has binaryData that is not base64"
        raise ConfigError(message) from e


def environment(pod: Obj, container: Obj, *, ip: str, host_ip: str, sources: Sources) -> dict[str, str]:
    """The environment of a container as the kubelet builds it: envFrom, then env in order, `$(NAME)` expanded by what stands before.

    `ip` and `host_ip` answer status.podIP and status.hostIP. Raises ConfigError for a missing Secret, ConfigMap or key that is not
    optional, and for sources that hollow nodes do not know.
    """
    env: dict[str, str] = {}
    for group in container.get("envFrom") or []:
        env |= _env_group(group, sources)
    for entry in container.get("env") or []:
        name = entry["name"]
        if "valueFrom" not in entry:
            env[name] = expanded(entry.get("value") or "", env)
            continue
        source = entry["valueFrom"]
        if "fieldRef" in source:
            env[name] = field_value(pod, source["fieldRef"]["fieldPath"], ip=ip, host_ip=host_ip)
            continue
        value = _from(name, source, sources)
        if value is not None:
            env[name] = value
    return env


def expanded(value: str, env: Mapping[str, str]) -> str:
    """`$(NAME)` replaced by its value; an unknown name is left as it stands and `$$` is one dollar (Kubernetes' dependent variables)."""

    def replacement(found: re.Match[str]) -> str:
        inner = found.group(1)
        return "$" if inner == "$" else env.get(inner[1:-1], found.group(0))

    return _VARIABLE.sub(replacement, value)


def _env_group(group: Obj, sources: Sources) -> dict[str, str]:
    prefix = group.get("prefix") or ""
    for key, kind, read in (("secretRef", "secret", sources.secret), ("configMapRef", "configmap", sources.config_map)):
        if key in group:
            data = read(group[key]["name"])
            if data is None and not group[key].get("optional"):
                message = f'{kind} "{group[key]["name"]}" not found'
                raise ConfigError(message)
            return {prefix + name: value.decode(errors="replace") for name, value in (data or {}).items()}
    return {}


def _from(name: str, source: Obj, sources: Sources) -> str | None:
    for key, kind, read in (("secretKeyRef", "secret", sources.secret), ("configMapKeyRef", "configmap", sources.config_map)):
        if key in source:
            return _key_value(source[key], kind, read)
    unknown = ", ".join(sorted(source))
    message = f"environment variable {name}: hollow nodes know value, fieldRef, secretKeyRef and configMapKeyRef, not {unknown}"
    raise ConfigError(message)


def _key_value(reference: Obj, kind: str, read: Callable[[str], Data | None]) -> str | None:
    data = read(reference["name"])
    if data is not None and reference["key"] in data:
        return data[reference["key"]].decode(errors="replace")
    if reference.get("optional"):
        return None
    name, key = reference["name"], reference["key"]
    message = f'{kind} "{name}" not found' if data is None else f"couldn't find key {key} in {kind} {name}"
    raise ConfigError(message)


def field_value(pod: Obj, path: str, *, ip: str, host_ip: str) -> str:
    """The value of a downward-API field path (`metadata.name`, `metadata.labels['key']`, `spec.nodeName`, `status.podIP` …)."""
    meta, spec = pod["metadata"], pod["spec"]
    simple = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.podIP": ip,
        "status.podIPs": ip,
        "status.hostIP": host_ip,
        "status.hostIPs": host_ip,
    }
    if path in simple:
        return str(simple[path])
    if keyed := _KEYED.match(path):
        return str((meta.get(keyed.group(1)) or {}).get(keyed.group("key"), ""))
    message = f"hollow nodes do not know the field {path}"
    raise ConfigError(message)


def volumes(pod: Obj, container: Obj, sources: Sources) -> list[Volume]:
    """The volumes that a container mounts, longest mount path first, so that the innermost mount wins.

    Secrets and ConfigMaps come with their files; other kinds (the projected token, hostPath …) are treated as an empty folder. Raises
    ConfigError when a Secret or ConfigMap that is not optional is missing.
    """
    declared = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
    found = []
    for mount in container.get("volumeMounts") or []:
        volume = declared.get(mount["name"], {})
        place = {"name": mount["name"], "mount_path": mount["mountPath"].rstrip("/") or "/", "sub_path": mount.get("subPath") or ""}
        if "persistentVolumeClaim" in volume:
            found.append(Volume(**place, kind="claim", claim=volume["persistentVolumeClaim"]["claimName"]))
        elif "secret" in volume:
            source = volume["secret"]
            found.append(Volume(**place, kind="files", files=_files(source, source["secretName"], "secret", sources.secret)))
        elif "configMap" in volume:
            source = volume["configMap"]
            found.append(Volume(**place, kind="files", files=_files(source, source["name"], "configmap", sources.config_map)))
        else:
            found.append(Volume(**place))
    return sorted(found, key=lambda volume: len(volume.mount_path), reverse=True)


def _files(source: Obj, name: str, kind: str, read: Callable[[str], Data | None]) -> dict[str, bytes]:
    data = read(name)
    if data is None:
        if source.get("optional"):
            return {}
        message = f'{kind} "{name}" not found'
        raise ConfigError(message)
    items = source.get("items")
    if not items:
        return dict(data)
    absent = [item["key"] for item in items if item["key"] not in data]
    if absent and not source.get("optional"):
        message = f"{kind} {name} has no key {absent[0]}"
        raise ConfigError(message)
    return {item["path"]: data[item["key"]] for item in items if item["key"] in data}


def relocated(env: Mapping[str, str], folders: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The environment with mount paths at the start of values turned to folders; `folders` are (mount path, folder), innermost first."""

    def moved(value: str) -> str:
        for mount_path, folder in folders:
            if value == mount_path or value.startswith(mount_path.rstrip("/") + "/"):
                return folder + value[len(mount_path.rstrip("/")) :]
        return value

    return {name: moved(value) for name, value in env.items()}


def patience(probe: Obj | None) -> timedelta | None:
    """How long the kubelet bears with a container that has stopped answering this probe; None without a probe (it bears for ever)."""
    if probe is None:
        return None
    period = timedelta(seconds=probe.get("periodSeconds") or 10)
    return period * (int(probe.get("failureThreshold") or 3) - 1) + timedelta(seconds=probe.get("timeoutSeconds") or 1)


def selects(selector: Mapping[str, str] | None, labels: Mapping[str, str] | None) -> bool:
    """Whether a Service's selector matches a pod's labels; a Service without a selector matches nothing."""
    return bool(selector) and all((labels or {}).get(key) == value for key, value in (selector or {}).items())


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
    """The pods that a Service routes to now, by name.

    As the endpointslice controller and kube-proxy do it: publishNotReadyAddresses takes all; otherwise the ready ones that do not leave,
    and if there is none, those that leave but still answer.
    """
    spec = service["spec"]
    chosen = sorted((pod for pod in pods if pod.ip and selects(spec.get("selector"), pod.labels)), key=lambda pod: pod.name)
    if spec.get("publishNotReadyAddresses"):
        return chosen
    return [pod for pod in chosen if pod.ready and not pod.leaving] or [pod for pod in chosen if pod.ready]


def target_port(service: Obj, port: int, pod: Backend) -> int:
    """The pod's port behind a port of the Service (a headless Service maps nothing). Raises LookupError when Service or pod has none."""
    spec = service["spec"]
    if spec.get("clusterIP") == "None":
        return port
    for entry in spec.get("ports") or []:
        if entry["port"] == port:
            target = entry.get("targetPort", port)
            if isinstance(target, int):
                return target
            if target in pod.ports:
                return pod.ports[target]
            message = f"service {service['metadata']['name']}: pod {pod.name} has no port named {target}"
            raise LookupError(message)
    message = f"service {service['metadata']['name']} has no port {port}"
    raise LookupError(message)


def named_ports(pod: Obj) -> dict[str, int]:
    """The named container ports of a pod."""
    return {port["name"]: port["containerPort"] for one in pod["spec"]["containers"] for port in one.get("ports") or [] if "name" in port}


def service_name(host: str, namespace: str) -> tuple[str, str]:
    """(namespace, name) of the Service that a host name means in a namespace: `name`, `name.namespace`, `name.namespace.svc…`."""
    name, _, rest = host.partition(".")
    return (rest.split(".", 1)[0] if rest else namespace), name


def is_address(host: str) -> bool:
    """Whether a host is an IP address already."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
