"""Fetch real textured meshes from public packages, for benchmarks only; nothing of it is committed.

    python benchmarks/fetch_assets.py --out DIR [--source genesis] [--source webxr]

``genesis``: the wheel genesis-world 1.4.5 from PyPI, of which only ``genesis/assets/meshes`` is unpacked
(Apache-2.0 package, no note per asset). ``webxr``: @webxr-input-profiles/assets 1.0.20 from npm (MIT).
Neither package is imported or installed. ``DIR/manifest.json`` lists every mesh with its size, sha256 and
the number of base-colour textures that ``load_asset`` found.
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
from pathlib import Path, PurePosixPath
from typing import IO

log = logging.getLogger("fetch_assets")

MESH_SUFFIXES = {".glb", ".gltf", ".obj", ".ply", ".stl", ".off"}
SIDE_SUFFIXES = {".mtl", ".bin", ".png", ".jpg", ".jpeg", ".dds"}
MAX_FILE, MAX_TOTAL = 64 * 1024**2, 1024**3

GENESIS = "genesis-world==1.4.5"
WEBXR = "@webxr-input-profiles/assets@1.0.20"


def download_genesis(cache: Path) -> Path:
    """The wheel in ``cache``, downloaded unless it is there."""
    if not (found := sorted(cache.glob("genesis_world-*.whl"))):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache), GENESIS]
        subprocess.run(command, check=True)
        found = sorted(cache.glob("genesis_world-*.whl"))
    return found[0]


def download_webxr(cache: Path) -> Path:
    """The npm tarball in ``cache``, downloaded unless it is there; ``npm pack`` runs no package script."""
    if not (found := sorted(cache.glob("webxr-input-profiles-assets-*.tgz"))):
        subprocess.run(["npm", "pack", "--silent", "--ignore-scripts", WEBXR], check=True, cwd=cache)
        found = sorted(cache.glob("webxr-input-profiles-assets-*.tgz"))
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
    parser.add_argument("--source", action="append", choices=("genesis", "webxr"), help="default: both")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    out: Path = arguments.out.resolve()
    cache = out / "cache"
    cache.mkdir(parents=True, exist_ok=True)

    sources = arguments.source or ["genesis", "webxr"]
    if "genesis" in sources:
        with zipfile.ZipFile(download_genesis(cache)) as archive:
            unpack(zip_members(archive), "genesis/assets/meshes/", out / "genesis")
    if "webxr" in sources:
        with tarfile.open(download_webxr(cache), "r:gz") as tarball:
            unpack(tar_members(tarball), "package/dist/profiles/", out / "webxr")

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
