#!/usr/bin/env python3
"""Makes the container image as an OCI archive, without a container engine: `make image`.

    scripts/image.py                                   builds the programs for this machine and packs them
    scripts/image.py --platform linux/amd64=FOLDER --platform linux/arm64=FOLDER
                                                       packs programs that are built, one folder for each platform

The image is what the Containerfile builds: three static programs and the few files that a C library looks for, run as
65532:65532. The same programs give the same bytes: all times are zero, all entries are in order. The archive can be
imported by `ctr -n k8s.io images import`, `skopeo copy oci-archive:…`, `podman load` and, of one platform, by
`docker load`. Prints the archive's path.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("walstorage-operator", "walstorage-sidecar", "walctl")
USER = 65532
# Static files: without a C library's folders nothing else names users and hosts.
FILES = {
    "etc/passwd": f"root:x:0:0:root:/:/sbin/nologin\nnonroot:x:{USER}:{USER}:nonroot:/:/sbin/nologin\n",
    "etc/group": f"root:x:0:\nnonroot:x:{USER}:\n",
    "etc/nsswitch.conf": "hosts: files dns\npasswd: files\ngroup: files\n",
}
DIRECTORIES = {"etc": 0o755, "tmp": 0o1777}
# e_machine of ELF files, by the names that OCI gives to architectures.
MACHINES = {"amd64": 62, "arm64": 183}

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class Refused(Exception):
    """What was given cannot become an image."""


def version() -> str:
    """The version of the workspace."""
    return str(tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"])


def check_program(path: Path, content: bytes, architecture: str) -> None:
    """A program of the image is an ELF file of 64 bits for that machine which needs no loader: there is none."""
    if content[:5] != b"\x7fELF\x02":
        raise Refused(f"{path} is no 64-bit ELF file")
    machine = int.from_bytes(content[18:20], "little")
    if machine != MACHINES[architecture]:
        raise Refused(f"{path} is for ELF machine {machine}, not for {architecture}")
    table, size, count = (int.from_bytes(content[at : at + n], "little") for at, n in ((32, 8), (54, 2), (56, 2)))
    headers = (content[table + n * size : table + n * size + 4] for n in range(count))
    if (3).to_bytes(4, "little") in headers:
        raise Refused(f"{path} is linked dynamically and would not start: build it with -C target-feature=+crt-static")


def tar(entries: list[tuple[str, int, bytes | None]]) -> bytes:
    """A tar archive of files and, without content, directories; owned by root, at the beginning of time."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, mode, content in entries:
            info = tarfile.TarInfo(name)
            info.mode = mode
            if content is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()


def layer(folder: Path, architecture: str) -> bytes:
    """The one layer of a platform, as a tar archive."""
    entries: list[tuple[str, int, bytes | None]] = [(name, mode, None) for name, mode in DIRECTORIES.items()]
    entries += [(name, 0o644, text.encode()) for name, text in FILES.items()]
    for name in PROGRAMS:
        path = folder / name
        if not path.is_file():
            raise Refused(f"{path} is missing")
        content = path.read_bytes()
        check_program(path, content, architecture)
        entries.append((name, 0o755, content))
    return tar(sorted(entries))


@dataclass
class Store:
    """Blobs by their digests."""

    blobs: dict[str, bytes]

    def add(self, content: bytes, media_type: str) -> dict[str, Any]:
        """Keeps a blob and answers its descriptor."""
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def add_json(self, document: dict[str, Any], media_type: str) -> dict[str, Any]:
        """Keeps a document."""
        return self.add(encode(document), media_type)


def encode(document: Any) -> bytes:
    """JSON in its one form."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def add_platform(store: Store, folder: Path, architecture: str) -> dict[str, Any]:
    """Adds an image of one platform; answers the descriptor of its manifest."""
    plain = layer(folder, architecture)
    config = {
        "architecture": architecture,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "User": f"{USER}:{USER}",
            "Entrypoint": ["/walstorage-sidecar"],
            "Env": ["PATH=/"],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": "walstorage",
                "org.opencontainers.image.description": "WalStorage: operator, sidecar and walctl",
                "org.opencontainers.image.licenses": "Apache-2.0",
                "org.opencontainers.image.version": version(),
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(plain).hexdigest()}"]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "scripts/image.py"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": store.add_json(config, CONFIG),
        "layers": [store.add(gzip.compress(plain, mtime=0), LAYER)],
    }
    descriptor = store.add_json(manifest, MANIFEST)
    return {**descriptor, "platform": {"architecture": architecture, "os": "linux"}}


def archive(platforms: dict[str, Path], name: str) -> bytes:
    """The archive: an OCI layout, and what `docker load` reads where there is one platform."""
    store = Store({})
    manifests = [add_platform(store, folder, architecture) for architecture, folder in sorted(platforms.items())]
    top = manifests[0]
    if len(manifests) > 1:
        top = store.add_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}, INDEX)
    annotations = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rsplit(":", 1)[1]}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**top, "annotations": annotations}]}
    entries: list[tuple[str, int, bytes | None]] = [
        ("oci-layout", 0o644, encode({"imageLayoutVersion": "1.0.0"})),
        ("index.json", 0o644, encode(index)),
        ("blobs", 0o755, None),
        ("blobs/sha256", 0o755, None),
    ]
    entries += [(f"blobs/sha256/{digest}", 0o644, content) for digest, content in store.blobs.items()]
    if len(manifests) == 1:
        manifest = json.loads(store.blobs[top["digest"].removeprefix("sha256:")])
        blobs = [f"blobs/{part['digest'].replace(':', '/')}" for part in (manifest["config"], *manifest["layers"])]
        docker = [{"Config": blobs[0], "RepoTags": [name], "Layers": blobs[1:]}]
        entries.append(("manifest.json", 0o644, encode(docker)))
    return tar(sorted(entries))


def build(profile: str) -> Path:
    """Builds the programs for this machine, static, and answers their folder.

    Only our own crates are compiled for this: the libraries are those of every other build of the profile.
    """
    command = ["cargo", "build", "--locked", "--profile", profile, "--workspace"]
    command += ["--message-format", "json-render-diagnostics"]
    command += [f"--bin={program}" for program in PROGRAMS]
    wrapper = {"RUSTC_WORKSPACE_WRAPPER": str(ROOT / "scripts" / "static-rustc.sh")}
    done = subprocess.run(
        command, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True, env={**os.environ, **wrapper}
    )
    if done.returncode:
        raise Refused("the programs cannot be built")
    folder = ROOT / "target" / "image" / profile
    folder.mkdir(parents=True, exist_ok=True)
    messages = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    for built in (Path(message["executable"]) for message in messages if message.get("executable")):
        (folder / built.name).write_bytes(built.read_bytes())
    return folder


def this_machine() -> str:
    """What OCI calls the architecture of this machine."""
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    machine = os.uname().machine
    if machine not in names:
        raise Refused(f"no image for {machine}: name the platforms with --platform")
    return names[machine]


def parse_platform(text: str) -> tuple[str, Path]:
    """`linux/amd64=FOLDER`."""
    platform, _, folder = text.partition("=")
    system, _, architecture = platform.partition("/")
    if system != "linux" or architecture not in MACHINES or not folder:
        known = ", ".join(f"linux/{name}" for name in MACHINES)
        raise argparse.ArgumentTypeError(f"{text!r} is not PLATFORM=FOLDER; platforms: {known}")
    return architecture, Path(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--platform", action="append", type=parse_platform, metavar="PLATFORM=FOLDER", default=[])
    parser.add_argument("--profile", default="ci", help="of cargo, for a build of this machine (default: ci)")
    parser.add_argument("--repository", default="localhost/walstorage", help="the image's name without its tag")
    parser.add_argument("--output", type=Path, help="the archive (default: target/image/walstorage-VERSION.tar)")
    arguments = parser.parse_args()
    try:
        platforms = dict(arguments.platform) or {this_machine(): build(arguments.profile)}
        content = archive(platforms, f"{arguments.repository}:{version()}")
    except Refused as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    output = arguments.output or ROOT / "target" / "image" / f"walstorage-{version()}.tar"
    output.parent.mkdir(parents=True, exist_ok=True)
    # Whoever reads the archive meanwhile reads the old one or the new one.
    unfinished = output.with_name(f".{output.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.replace(output)
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
