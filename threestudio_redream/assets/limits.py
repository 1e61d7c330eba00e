"""Caps on what a file may make this process do; every loader checks them before it allocates."""

from __future__ import annotations

from dataclasses import dataclass

from threestudio_redream.errors import AssetLimitError

__all__ = ["DEFAULT_LIMITS", "Limits", "check_limit"]

MIB = 1024**2


@dataclass(frozen=True)
class Limits:
    """Upper bounds for one asset and everything it refers to.

    The defaults admit every mesh that the benchmarks fetch (the largest: 340 thousand faces, 4096 px
    textures) and keep a hostile file below 2 s and 1 GB on one ordinary core. Raise them for files that
    you trust: ``load_asset(path, limits=dataclasses.replace(DEFAULT_LIMITS, max_faces=10_000_000))``.

    Attributes:
        max_bytes: bytes of the file and of everything it refers to, together.
        max_text_bytes: bytes of a text format (OBJ, MTL, OFF, .gltf, ASCII PLY and STL): text parses slowly.
        max_vertices: vertices; an instanced mesh counts once per instance.
        max_faces: triangles, counted the same way.
        max_texture_pixels: pixels that one image may declare; nothing is decoded beyond it.
        max_total_texture_pixels: the same, summed over the images of the asset.
        texture_side: longer images are scaled down to at most this many pixels a side.
        max_archive_members: entries of a zip archive.
        max_unpacked_bytes: bytes that a zip archive declares or unpacks to, summed over its members.
        max_json_bytes: bytes of glTF JSON outside strings.
        max_json_depth: nesting of glTF JSON.
        max_nodes: scene-graph nodes; also mesh primitives after instancing.
        max_materials: materials.
    """

    max_bytes: int = 256 * MIB
    max_text_bytes: int = 24 * MIB
    max_vertices: int = 1_000_000
    max_faces: int = 1_000_000
    max_texture_pixels: int = 8192 * 4096
    max_total_texture_pixels: int = 3 * 4096 * 4096
    texture_side: int = 4096
    max_archive_members: int = 256
    max_unpacked_bytes: int = 256 * MIB
    max_json_bytes: int = 4 * MIB
    max_json_depth: int = 32
    max_nodes: int = 10_000
    max_materials: int = 1024


DEFAULT_LIMITS = Limits()


def check_limit(limits: Limits, name: str, value: int, what: str) -> None:
    """Raise AssetLimitError if ``value`` is above the cap ``name``.

    Args:
        name: an attribute of :class:`Limits`, e.g. ``"max_faces"``.
        what: the plural that is counted, for the message, e.g. ``"faces"``.
    """
    cap = getattr(limits, name)
    if value > cap:
        raise AssetLimitError(
            f"the file has more {what} than the cap of {cap:,}",
            received=value,
            fix=f"Simplify the file or, if you trust it, pass limits with a larger {name}",
        )
