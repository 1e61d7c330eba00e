"""Write the index assets: four objects of each kind as compact GLB files, each with a JSON sidecar.

    python -m tools.mini.write_assets --out outputs/mini-lab/assets

The same code writes the same bytes. Each file appears complete or not at all, a sidecar after its GLB.

Convention: the files follow glTF, +y up and +z in front. The canonical point (1, 0, 0), straight ahead of an object,
is written as (0, 0, 1); ``normalise(load_asset(file))`` brings it back.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from threestudio_redream.assets import Asset
from threestudio_redream.assets.glb_writer import encode_glb
from threestudio_redream.errors import RegistryError
from threestudio_redream.meshing.frames import world_to_gltf
from threestudio_redream.runtime.files import atomic_write_bytes, atomic_write_text
from tools.mini.descriptors import DESCRIPTORS
from tools.mini.kinds import KINDS, build, load_kinds
from tools.mini.seeds import instance_seed
from tools.mini.words import article

__all__ = ["AUTHOR", "LICENCE", "PER_KIND", "IndexAsset", "index_assets", "write_assets"]

log = logging.getLogger("mini-lab")

PER_KIND = 4
AUTHOR, LICENCE = "threestudio-redream contributors", "CC0-1.0"
#: Coprime with the number of descriptors: neighbours in the list get words that have little in common.
_STRIDE = 5


class IndexAsset(NamedTuple):
    """One object of the index: a kind, the word before it, and the seed of its shape."""

    kind: str
    descriptor: str
    seed: int

    @property
    def name(self) -> str:
        """``"red cat"``."""
        return f"{self.descriptor} {self.kind}"

    @property
    def identifier(self) -> str:
        """Stem of its files, unique in the library: ``"cat-red"``."""
        return f"{self.kind}-{self.descriptor}".replace(" ", "-")

    def model(self) -> Asset:
        """The object in the canonical frame."""
        return build(self.kind, self.descriptor, self.seed)

    def glb(self) -> bytes:
        """The GLB file."""
        asset = self.model()
        turned = replace(asset, vertices=world_to_gltf(asset.vertices), normals=world_to_gltf(asset.normals))
        return encode_glb(turned, compact=True, copyright=f"{AUTHOR}, {LICENCE}")

    def sidecar(self, glb: bytes) -> dict[str, Any]:
        """What a catalogue should know about it; ``front`` is an axis of the file, None where nothing is a front."""
        entry = KINDS[self.kind]
        return {
            "id": self.identifier,
            "name": self.name,
            "caption": article(self.name),
            "author": AUTHOR,
            "licence": LICENCE,
            "front": "+z" if entry.front else None,
            "tags": list(entry.tags),
            "kind": self.kind,
            "descriptor": self.descriptor,
            "seed": self.seed,
            "sha256": hashlib.sha256(glb).hexdigest(),
        }


def index_assets() -> list[IndexAsset]:
    """The whole library by kind; the four of a kind differ in their word, and all words occur about equally often."""
    return [
        IndexAsset(kind, DESCRIPTORS[_STRIDE * (PER_KIND * row + index) % len(DESCRIPTORS)], seed)
        for row, kind in enumerate(load_kinds())
        for index, seed in enumerate(instance_seed("index", kind, number) for number in range(PER_KIND))
    ]


def write_assets(out: Path, kinds: Sequence[str] | None = None) -> list[Path]:
    """Write the index assets of some kinds, or of all, and return the GLB files.

    Args:
        out: folder, made if need be. Files in it that do not belong to the library stay, with a warning.

    Raises:
        RegistryError: for an unknown kind.
    """
    table = load_kinds()
    if unknown := sorted(set(kinds or ()) - set(table)):
        raise RegistryError("There is no such kind of object", received=unknown, fix=f"Use some of {', '.join(table)}.")
    library, written = index_assets(), []
    for asset in library:
        if kinds is None or asset.kind in kinds:
            data, path = asset.glb(), out / f"{asset.identifier}.glb"
            atomic_write_bytes(path, data)
            atomic_write_text(path.with_suffix(".json"), json.dumps(asset.sidecar(data), indent=1) + "\n")
            written.append(path)
    known = {asset.identifier for asset in library}
    if strangers := sorted(path.name for path in out.glob("*") if path.stem not in known):
        log.warning("%s also holds files that are not of the library: %s", out, ", ".join(strangers[:5]))
    return written


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kinds", nargs="*", default=None, help="all of them if not given")
    arguments = parser.parse_args()
    written = write_assets(arguments.out, arguments.kinds)
    size = sum(path.stat().st_size + path.with_suffix(".json").stat().st_size for path in written)
    log.info("%d assets, %.2f MB, in %s", len(written), size / 1e6, arguments.out)


if __name__ == "__main__":
    main()
