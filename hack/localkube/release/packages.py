"""The packages of Python and Helm, so that two makes of one commit give the same bytes."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

import yaml

from localkube.charts import CLUSTER, IMAGES, OPERATOR, Helm
from localkube.errors import LocalKubeError
from localkube.plane.operators import NAME, NAMESPACE
from localkube.release.notes import changes
from localkube.run import output

SOURCES = ("pyproject.toml", "README.md", "LICENSE")
PACKAGES = ("whatsapp_operator", "wabiz_sim", "kubectl_whatsapp")
SECONDS = 300.0


def distributions(root: Path, folder: Path, *, epoch: int) -> list[Path]:
    """Make the sdist, and from it the wheel, in ``folder``. ``epoch``: the time of the commit, in seconds since 1970."""
    with tempfile.TemporaryDirectory(prefix="dist-") as work:
        source = Path(work)
        for name in SOURCES:
            shutil.copy(root / name, source)
        for package in PACKAGES:
            if (root / "operator" / package).is_dir():
                target = source / "operator" / package
                shutil.copytree(root / "operator" / package, target, ignore=shutil.ignore_patterns("__pycache__"))
        env = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
        argv = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
        output(argv, timeout=SECONDS, env=env)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    settle(sdist, epoch)
    return [sdist, wheel]


def charts(root: Path, folder: Path, helm: Helm, *, notes: str, epoch: int, registry: str = "") -> list[Path]:
    """Package both charts in ``folder``. ``notes`` become their changes; ``registry`` is where the images are, such as host/owner."""
    made = []
    with tempfile.TemporaryDirectory(prefix="charts-") as work:
        for name in (OPERATOR, CLUSTER):
            chart = Path(work) / name
            shutil.copytree(root / "charts" / name, chart)
            for path in (chart / "Chart.yaml", chart / "values.yaml", chart / "README.md"):
                text = path.read_text(encoding="utf-8")
                path.write_text(_in_registry(text, registry) if registry else text, encoding="utf-8")
            meta = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
            meta["annotations"]["artifacthub.io/changes"] = changes(notes)
            (chart / "Chart.yaml").write_text(yaml.safe_dump(meta, sort_keys=False, width=1000), encoding="utf-8")
            helm.run("package", str(chart), "--destination", str(folder))
            package = folder / f"{name}-{meta['version']}.tgz"
            settle(package, epoch)
            made.append(package)
    return made


def manifest(chart: Path, helm: Helm) -> str:
    """The operator as one file for ``kubectl apply``: what ``chart`` (a folder or package) renders to, after a Namespace.

    The CustomResourceDefinition alone has no labels, so that all else can be deleted by them and every cluster stays.
    """
    rendered = helm.run("template", NAME, str(chart), "--namespace", NAMESPACE, "--no-hooks", "--set", "crds.keep=false")
    labels = {"app.kubernetes.io/instance": NAME, "pod-security.kubernetes.io/enforce": "restricted"}
    objects = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}]
    for obj in filter(None, yaml.load_all(rendered, Loader=yaml.CSafeLoader)):
        template = obj.get("spec", {}).get("template", {})
        for part in (obj, template):
            for label in ("helm.sh/chart", "app.kubernetes.io/managed-by"):  # another client is the manager here
                part.get("metadata", {}).get("labels", {}).pop(label, None)
        objects.append(obj)
    return yaml.dump_all(objects, Dumper=yaml.CSafeDumper, sort_keys=False, width=1000)


def _in_registry(text: str, registry: str) -> str:
    for name in IMAGES.values():
        text = text.replace(name, f"{registry}/{name.rpartition('/')[2]}")
    return text


def settle(archive: Path, epoch: int) -> None:
    """Rewrite a .tar.gz in an order, with times and owners that depend on nothing but its files. LocalKubeError for odd members."""
    with tarfile.open(archive) as old:
        members = sorted(old.getmembers(), key=lambda one: one.name)
        # Chart.yaml first, where Helm's own packages have it.
        members.sort(key=lambda one: not one.name.endswith("/Chart.yaml"))
        written = _written(((member, _content(old, member)) for member in members), epoch)
    archive.write_bytes(written)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.isdir():
        return b""
    file = archive.extractfile(member) if member.isfile() else None
    if file is None:
        raise LocalKubeError(f"{member.name} in the archive is neither a file nor a folder")
    return file.read()


def _written(members: Iterable[tuple[tarfile.TarInfo, bytes]], epoch: int) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=epoch) as zipped, tarfile.open(fileobj=zipped, mode="w") as new:
        for member, content in members:
            info = tarfile.TarInfo(member.name)
            info.type, info.size, info.mtime = member.type, len(content), epoch
            info.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(info, io.BytesIO(content))
    return packed.getvalue()
