"""``load_asset``: the one loader for 3D files from outside."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from threestudio_redream.assets.assemble import Parsed, assemble
from threestudio_redream.assets.files import ArchiveFiles, FolderFiles, SideFiles, read_asset_file
from threestudio_redream.assets.limits import DEFAULT_LIMITS, Limits
from threestudio_redream.assets.sniff import Format, sniff
from threestudio_redream.assets.types import Asset
from threestudio_redream.errors import AssetError

__all__ = ["load_asset"]

#: What damaged bytes can make numpy and the standard library raise where a parser's own check has a gap.
_DAMAGE = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


class _Parser(Protocol):
    def __call__(self, data: bytes, files: SideFiles, limits: Limits) -> Parsed: ...


def _parser(kind: Format) -> _Parser:
    """The parser of a format, imported when it is needed."""
    if kind == "glb":
        from threestudio_redream.assets.formats.gltf import parse_glb as parser
    elif kind == "gltf":
        from threestudio_redream.assets.formats.gltf import parse as parser
    elif kind == "obj":
        from threestudio_redream.assets.formats.obj import parse as parser
    elif kind == "ply":
        from threestudio_redream.assets.formats.ply import parse as parser
    elif kind == "stl":
        from threestudio_redream.assets.formats.stl import parse as parser
    elif kind == "stl-ascii":
        from threestudio_redream.assets.formats.stl import parse_ascii as parser
    elif kind == "off":
        from threestudio_redream.assets.formats.off import parse as parser
    else:
        raise AssetError("an archive inside an archive is not opened", received=kind, fix="Unpack it yourself")
    return parser


def load_asset(path: str | Path, *, limits: Limits = DEFAULT_LIMITS) -> Asset:
    """Load a GLB, glTF, OBJ (+ MTL), PLY, STL or OFF file, or a zip archive that holds one of them.

    The format follows from the content, not from the extension. Nothing is downloaded, and nothing
    outside the folder of the file is read. Node transforms are applied, v points down, colours are
    sRGB-encoded. A texture that is missing or broken leaves a plain colour and a line in
    ``info["warnings"]``; everything else that is wrong is an error.

    Convention
    ----------
    Coordinates stay as in the file. For glTF that means metres, +y up, front +z; the other formats do
    not say, and +y is what ``normalise`` assumes. A glTF base colour factor of 0.2140 (linear) gives
    ``materials[i].base_color == 0.5`` (sRGB-encoded).

    Args:
        path: the file; side files (buffers, MTL, textures) are looked up in its folder and below.
        limits: caps, see :class:`Limits`.

    Returns:
        An :class:`Asset` with finite vertices, at least one face of non-zero area, indices in range.
        ``info`` holds ``format``, ``n_nodes`` and ``warnings``.

    Raises:
        AssetError: missing, empty, truncated, damaged, degenerate, unsafe, or of an unknown format; or
            Draco-compressed, and DracoPy is not installed.
        AssetLimitError: above a cap.
    """
    path = Path(path)
    try:
        return _load(path, limits)
    except AssetError as error:
        error.args = (f"{path.name}: {error}",)
        raise


def _load(path: Path, limits: Limits) -> Asset:
    data = read_asset_file(path, limits.max_bytes)
    kind = sniff(data, path.suffix)
    content = data
    files: SideFiles = FolderFiles(path.parent, limits.max_bytes - len(data))
    try:
        with np.errstate(all="ignore"):  # overflow and the like are looked for in the results
            if kind == "zip":
                archive = ArchiveFiles(data, limits)
                member, content = archive.open_mesh()
                kind, files = sniff(content, Path(member).suffix), archive
            parsed = _parser(kind)(content, files, limits)
            parsed.info["format"] = kind.removesuffix("-ascii")
            asset = assemble(parsed, name=path.stem, source=path, limits=limits)
    except AssetError:
        raise
    except _DAMAGE as error:
        raise AssetError(
            f"the file is damaged in a way that no check names: {type(error).__name__}",
            received=str(error)[:200],
            fix="Export or download it again, and please report it",
        ) from error
    return replace(asset, sha256=hashlib.sha256(data).hexdigest())
