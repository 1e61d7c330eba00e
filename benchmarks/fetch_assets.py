"""Fetch real meshes from public packages, for benchmarks only; nothing of it is committed.

    python benchmarks/fetch_assets.py --out DIR [--source genesis] [--source webxr] ...

The packages (:data:`SOURCES`) are downloaded, not imported or installed, and only their mesh folders are unpacked.
``DIR/manifest.json`` lists every mesh with its size, sha256 and the number of base-colour textures that ``load_asset``
found.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

log = logging.getLogger("fetch_assets")

MESH_SUFFIXES = {".glb", ".gltf", ".obj", ".ply", ".stl", ".off"}
SIDE_SUFFIXES = {".mtl", ".bin", ".png", ".jpg", ".jpeg", ".dds"}
MAX_FILE, MAX_TOTAL = 64 * 1024**2, 1024**3


@dataclass(frozen=True)
class Package:
    """Where meshes come from: a pinned file of PyPI or npm, the folder in it, the licence of the package."""

    registry: str
    name: str
    file: str
    prefix: str
    licence: str


SOURCES = {
    "genesis": Package(
        "pypi", "genesis-world==1.4.5", "genesis_world-1.4.5-*.whl", "genesis/assets/meshes/", "Apache-2.0"
    ),
    "webxr": Package(
        "npm",
        "@webxr-input-profiles/assets@1.0.20",
        "webxr-input-profiles-assets-1.0.20.tgz",
        "package/dist/profiles/",
        "MIT",
    ),
    "robosuite": Package("pypi", "robosuite==1.5.2", "robosuite-1.5.2-*.whl", "robosuite/models/assets/", "MIT"),
    "gymnasium-robotics": Package(
        "pypi",
        "gymnasium-robotics==1.4.2",
        "gymnasium_robotics-1.4.2-*.whl",
        "gymnasium_robotics/envs/assets/",
        "MIT",
    ),
    "pyvista": Package("pypi", "pyvista==0.49.1", "pyvista-0.49.1-*.whl", "pyvista/examples/", "MIT"),
}


def download(package: Package, cache: Path) -> Path:
    """The package file in ``cache``, downloaded unless it is there; no code of it is run."""
    if not (found := sorted(cache.glob(package.file))):
        if package.registry == "pypi":
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            command += ["--dest", str(cache), package.name]
        else:
            command = ["npm", "pack", "--silent", "--ignore-scripts", package.name]
        subprocess.run(command, check=True, cwd=cache)
        found = sorted(cache.glob(package.file))
    return found[0]


def relative_name(name: str, prefix: str) -> Path | None:
    """The member's path below ``prefix``, or None when it lies elsewhere, is no asset, or tries to escape."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not name.startswith(prefix):
        return None
    if path.suffix.lower() not in MESH_SUFFIXES | SIDE_SUFFIXES:
        return None
    return Path(*PurePosixPath(name[len(prefix) :]).parts)


def zip_members(archive: zipfile.ZipFile) -> Iterator[tuple[str, IO[bytes]]]:
    for entry in archive.infolist():
        if not entry.is_dir():
            yield entry.filename, archive.open(entry)


def tar_members(archive: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
    for entry in archive:
        if entry.isreg() and (stream := archive.extractfile(entry)) is not None:
            yield entry.name, stream


def unpack(members: Iterable[tuple[str, IO[bytes]]], prefix: str, out: Path) -> None:
    """Write the assets below ``prefix`` to ``out``, with a cap per file and in total."""
    total = 0
    for name, stream in members:
        relative = relative_name(name, prefix)
        if relative is None:
            continue
        data = stream.read(MAX_FILE + 1)
        total += len(data)
        if len(data) > MAX_FILE or total > MAX_TOTAL:
            raise SystemExit(f"{name} is larger than expected; refusing to unpack it")
        target = out / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".part")
        partial.write_bytes(data)
        os.replace(partial, target)


def fetch(package: Package, cache: Path, out: Path) -> None:
    """Download and unpack one package's meshes to ``out``."""
    file = download(package, cache)
    if package.registry == "pypi":
        with zipfile.ZipFile(file) as archive:
            unpack(zip_members(archive), package.prefix, out)
    else:
        with tarfile.open(file, "r:gz") as tarball:
            unpack(tar_members(tarball), package.prefix, out)


def describe(root: Path) -> list[dict[str, object]]:
    """Load every mesh below ``root``; one record each, errors included."""
    from threestudio_redream.assets import load_asset
    from threestudio_redream.errors import AssetError

    records: list[dict[str, object]] = []
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in MESH_SUFFIXES):
        record: dict[str, object] = {"file": path.relative_to(root).as_posix(), "bytes": path.stat().st_size}
        record["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        start = time.perf_counter()
        try:
            asset = load_asset(path)
        except AssetError as error:
            record["error"] = str(error)
        else:
            record |= {
                "vertices": len(asset.vertices),
                "faces": len(asset.faces),
                "materials": len(asset.materials),
                "textures": sum(material.texture is not None for material in asset.materials),
                "warnings": asset.info["warnings"],
            }
        record["seconds"] = round(time.perf_counter() - start, 4)
        records.append(record)
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for downloads, meshes and manifest.json")
    parser.add_argument("--source", action="append", choices=sorted(SOURCES), help="default: genesis and webxr")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    out: Path = arguments.out.resolve()
    cache = out / "cache"
    cache.mkdir(parents=True, exist_ok=True)

    sources = arguments.source or ["genesis", "webxr"]
    for name in sources:
        fetch(SOURCES[name], cache, out / name)

    records = [
        {"source": source, **record}
        for source in sources
        if (out / source).is_dir()
        for record in describe(out / source)
    ]
    (out / "manifest.json").write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    for record in records:
        if record.get("textures") or "error" in record:
            note = record.get("error") or f"{record['faces']} faces, {record['textures']} textures"
            log.info("%s/%s: %s (%.2f s)", record["source"], record["file"], note, record["seconds"])
    failed = sum("error" in record for record in records)
    log.info("%d meshes, %d refused; manifest: %s", len(records), failed, out / "manifest.json")


if __name__ == "__main__":
    main()
