"""The image archive: its layout, what is in it, and that the same programs give the same bytes."""

import gzip
import hashlib
import io
import json
import re
import struct
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = ["walctl", "walstorage-operator", "walstorage-sidecar"]
LOADABLE, INTERPRETER = 1, 3


def elf(machine: int, segments: list[int], text: bytes) -> bytes:
    """The beginning of a program: an ELF header and its program headers."""
    start = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = start + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, len(segments), 0, 0, 0)
    return header + b"".join(struct.pack("<I", kind).ljust(56, b"\0") for kind in segments) + text


def programs(folder: Path, machine: int, segments: list[int]) -> Path:
    folder.mkdir()
    for name in PROGRAMS:
        (folder / name).write_bytes(elf(machine, segments, name.encode()))
    return folder


def image(output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "image.py"), "--output", str(output), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def files(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar if info.isfile()}


class Blobs:
    """The blobs of an archive; each that is read has the size and digest that its descriptor says."""

    def __init__(self, archive: Path) -> None:
        self.files = files(archive.read_bytes())

    def read(self, descriptor: dict[str, Any]) -> bytes:
        content = self.files["blobs/" + descriptor["digest"].replace(":", "/")]
        assert hashlib.sha256(content).hexdigest() == descriptor["digest"].removeprefix("sha256:")
        assert len(content) == descriptor["size"]
        return content

    def top(self) -> dict[str, Any]:
        assert json.loads(self.files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
        (top,) = json.loads(self.files["index.json"])["manifests"]
        return top


def version() -> str:
    return re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]


def check_platform(blobs: Blobs, manifest: dict[str, Any], architecture: str) -> None:
    config = json.loads(blobs.read(manifest["config"]))
    assert (config["architecture"], config["os"]) == (architecture, "linux")
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["Entrypoint"] == ["/walstorage-sidecar"]
    (layer,) = manifest["layers"]
    plain = gzip.decompress(blobs.read(layer))
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(plain).hexdigest()]
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        members = {info.name: info for info in tar}
    assert all((info.uid, info.gid, info.mtime) == (0, 0, 0) for info in members.values())
    modes = {name: info.mode for name, info in members.items()}
    etc = {f"etc/{name}": 0o644 for name in ("passwd", "group", "nsswitch.conf")}
    assert modes == {"etc": 0o755, "tmp": 0o1777, **etc, **dict.fromkeys(PROGRAMS, 0o755)}
    content = files(plain)
    assert all(content[name].endswith(name.encode()) for name in PROGRAMS)
    assert b":65532:65532:" in content["etc/passwd"]
    assert content["etc/nsswitch.conf"].startswith(b"hosts: files dns\n")


def test_an_archive_of_one_platform_can_be_imported_by_containerd_and_by_docker(tmp_path: Path) -> None:
    folder = programs(tmp_path / "amd64", 62, [LOADABLE])
    done = image(tmp_path / "a.tar", "--platform", f"linux/amd64={folder}")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'a.tar'}\n"), done.stderr
    blobs = Blobs(tmp_path / "a.tar")
    top = blobs.top()
    name = f"localhost/walstorage:{version()}"
    assert top["annotations"] == {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": version(),
    }
    manifest = json.loads(blobs.read(top))
    check_platform(blobs, manifest, "amd64")
    (docker,) = json.loads(blobs.files["manifest.json"])
    assert docker["RepoTags"] == [name]
    assert docker["Config"].endswith(manifest["config"]["digest"].removeprefix("sha256:"))
    assert set(docker["Layers"]) <= set(blobs.files)


def test_an_archive_of_several_platforms_has_an_index(tmp_path: Path) -> None:
    folders = {"amd64": programs(tmp_path / "x", 62, [LOADABLE]), "arm64": programs(tmp_path / "y", 183, [LOADABLE])}
    arguments = [f"--platform=linux/{name}={folder}" for name, folder in folders.items()]
    assert image(tmp_path / "a.tar", *arguments).returncode == 0
    blobs = Blobs(tmp_path / "a.tar")
    index = json.loads(blobs.read(blobs.top()))
    assert [manifest["platform"]["architecture"] for manifest in index["manifests"]] == ["amd64", "arm64"]
    for manifest in index["manifests"]:
        check_platform(blobs, json.loads(blobs.read(manifest)), manifest["platform"]["architecture"])


def test_the_same_programs_give_the_same_bytes_whenever_and_wherever_they_were_built(tmp_path: Path) -> None:
    archives = []
    for n, time in enumerate((1, 2_000_000_000)):
        folder = programs(tmp_path / f"built{n}", 62, [LOADABLE])
        for name in PROGRAMS:
            (folder / name).chmod(0o700 + n)
            # Another time and another mode of the file change nothing.
            subprocess.run(["touch", "-d", f"@{time}", str(folder / name)], check=True)
        assert image(tmp_path / f"{n}.tar", f"--platform=linux/amd64={folder}").returncode == 0
        archives.append((tmp_path / f"{n}.tar").read_bytes())
    assert archives[0] == archives[1]
    (tmp_path / "built1" / "walctl").write_bytes(elf(62, [LOADABLE], b"another walctl"))
    assert image(tmp_path / "2.tar", f"--platform=linux/amd64={tmp_path / 'built1'}").returncode == 0
    assert (tmp_path / "2.tar").read_bytes() != archives[0]


@pytest.mark.parametrize(
    ("machine", "segments", "message"),
    [(62, [LOADABLE, INTERPRETER], "linked dynamically"), (183, [LOADABLE], "ELF machine 183, not for amd64")],
)
def test_a_program_that_would_not_start_is_refused(
    tmp_path: Path, machine: int, segments: list[int], message: str
) -> None:
    folder = programs(tmp_path / "built", machine, segments)
    done = image(tmp_path / "a.tar", f"--platform=linux/amd64={folder}")
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "a.tar").exists()


def test_a_missing_program_and_an_unknown_platform_are_refused(tmp_path: Path) -> None:
    folder = programs(tmp_path / "built", 62, [LOADABLE])
    assert image(tmp_path / "a.tar", f"--platform=linux/sparc={folder}").returncode == 2
    (folder / "walctl").unlink()
    done = image(tmp_path / "a.tar", f"--platform=linux/amd64={folder}")
    assert done.returncode == 1
    assert "walctl is missing" in done.stderr


def test_the_containerfile_makes_the_same_image() -> None:
    """What is written twice is compared: users, entry point, files, programs."""
    text = (ROOT / "Containerfile").read_text()
    sys.path.insert(0, str(ROOT / "scripts"))
    import image as tool  # noqa: PLC0415

    for name, content in tool.FILES.items():
        assert f"printf '{content.encode('unicode_escape').decode()}' >/image/{name}" in text
    assert f"USER {tool.USER}:{tool.USER}\n" in text
    assert 'ENTRYPOINT ["/walstorage-sidecar"]' in text
    assert "ENV PATH=/\n" in text
    assert all(f"--bin {name}" in text for name in tool.PROGRAMS)
