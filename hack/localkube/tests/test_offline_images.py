"""What goes into the images that are made here: Debian's mirror, archives without a container engine, programs and their names."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from localkube.errors import LocalKubeError
from localkube.files import EXECUTABLE, write
from localkube.offline import archive as kind_archive
from localkube.offline import debian
from localkube.offline.archive import COMPONENTS, ComponentImage
from localkube.programs.versions import chart_programs, kind_programs, pinned_programs

KINDEST = ["docker.io/kindest/kindnetd:v20260820-69b56db7", "docker.io/kindest/local-path-helper:v20260131-7181c60a"]


@pytest.mark.parametrize(
    ("configured", "mirror"),
    [
        (("http://m.test/debian-security bookworm-security", "http://m.test/debian bookworm"), "http://m.test/debian"),
        (("http://m.test/ubuntu noble", "http://m.test/apt cloud-sdk-bookworm"), None),
        ((), None),
    ],
)
def test_the_mirror_is_the_machines_own(
    configured: tuple[str, ...], mirror: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "apt-get", "#!/bin/sh\n" + "".join(f"echo {line}\n" for line in configured), mode=EXECUTABLE)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert debian.mirror() == mirror


def test_without_apt_there_is_no_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert debian.mirror() is None


def test_a_root_file_system_is_made_again_when_what_it_is_made_from_changes() -> None:
    root = debian.PYTHON
    assert len({root.key, replace(root, packages=(*root.packages, "curl")).key, replace(root, after="true; true").key}) == 3
    assert replace(root, expected_s=1).key == root.key


def program(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(f"the program {name}".encode())
    return path


def test_an_archive_names_all_its_images_first(tmp_path: Path) -> None:
    below = tmp_path / "below.tar"
    with tarfile.open(below, "w"):
        pass
    images = [
        ComponentImage("example.test/one:v1", program(tmp_path, "one")),
        ComponentImage("example.test/two:v2", program(tmp_path, "two"), below, entrypoint=True),
    ]
    kind_archive.write_archive(images, tmp_path / "images.tar", tmp_path, "amd64")
    with tarfile.open(tmp_path / "images.tar") as archive:
        content = {member.name: archive.extractfile(member) for member in archive}
        read = {name: stream.read() for name, stream in content.items() if stream}
    # kind reads the first of these two that it meets, and of a manifest only its first image
    assert next(iter(read)) == "repositories"
    assert set(json.loads(read["repositories"])) == {"example.test/one", "example.test/two"}
    one, two = json.loads(read["manifest.json"])
    assert (one["RepoTags"], two["RepoTags"]) == (["example.test/one:v1"], ["example.test/two:v2"])
    assert [len(image["Layers"]) for image in (one, two)] == [1, 2]
    for image in (one, two):
        config = json.loads(read[image["Config"]])
        digests = [f"sha256:{hashlib.sha256(read[layer]).hexdigest()}" for layer in image["Layers"]]
        assert config["rootfs"]["diff_ids"] == digests
        assert image["Config"] == f"{hashlib.sha256(read[image['Config']]).hexdigest()}.json"
        assert config["architecture"] == "amd64"
    assert "Entrypoint" not in json.loads(read[one["Config"]])["config"]
    assert json.loads(read[two["Config"]])["config"]["Entrypoint"] == ["/usr/local/bin/two"]
    with tarfile.open(fileobj=io.BytesIO(read[two["Layers"][1]])) as layer:
        (member,) = layer.getmembers()
    assert (member.name, member.mode) == ("usr/local/bin/two", 0o755)


def test_the_server_archive_is_laid_out_as_a_release_of_kubernetes(tmp_path: Path) -> None:
    names = {*COMPONENTS, "kubeadm", "kubelet", "kubectl"}
    paths = {name: program(tmp_path, name) for name in names}
    paths["kind"] = tmp_path / "kind"
    paths["kind"].write_bytes(b"\0" + b"kindnet".join(name.encode() for name in KINDEST))
    proxy = tmp_path / "proxy.tar"
    with tarfile.open(proxy, "w"):
        pass
    images = {name: f"example.test/{name}:v1" for name in COMPONENTS}
    path = kind_archive.server_archive(paths, images, proxy, tmp_path)
    with gzip.open(path) as stream, tarfile.open(fileobj=stream) as server:
        read = {member.name.removeprefix("kubernetes/"): part.read() for member in server if (part := server.extractfile(member))}
    assert read["version"].startswith(b"v1.")
    assert {"server/bin/kubeadm", "server/bin/kubelet", "server/bin/kubectl"} < set(read)
    held = {}
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"):
        with tarfile.open(fileobj=io.BytesIO(read[f"server/bin/{name}.tar"])) as archive:
            manifest = archive.extractfile("manifest.json")
            assert manifest is not None
            held[name] = {image["RepoTags"][0] for image in json.loads(manifest.read())}
    for name in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
        assert held[name] == {f"example.test/{name}:v1"}
    assert held["kube-apiserver"] == {f"example.test/{name}:v1" for name in ("kube-apiserver", "etcd", "coredns", "pause")} | set(KINDEST)


def test_kinds_own_images_are_read_from_its_program() -> None:
    assert kind_archive.kindest_images(b"x" + KINDEST[0].encode() + b"y" + KINDEST[1].encode() + KINDEST[0].encode()) == sorted(KINDEST)
    with pytest.raises(LocalKubeError, match="another pattern"):
        kind_archive.kindest_images(b"no images")


def test_kinds_programs_are_a_group_of_their_own() -> None:
    kind = {one.name for one in kind_programs()}
    assert {"kind", "kubelet", "kubeadm", "kube-proxy", "containerd", "coredns", "pause"} <= kind
    assert not kind & {one.name for one in (*pinned_programs(), *chart_programs())}
    versions = {one.name: one.version for one in kind_programs()}
    assert versions["kubelet"] == next(one.version for one in pinned_programs() if one.name == "kube-apiserver")
    assert {one.build_tags for one in kind_programs() if one.module.name == "containerd"} == {"no_btrfs,no_devmapper"}
