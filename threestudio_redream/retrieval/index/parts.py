"""Parts: immutable groups of rows on disk. Writing one, reading one, and copying chosen rows of one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from threestudio_redream.retrieval.checks import canonical_json
from threestudio_redream.retrieval.errors import RetrievalError
from threestudio_redream.retrieval.index.integrity import file_entry
from threestudio_redream.retrieval.index.manifest import PartEntry
from threestudio_redream.retrieval.index.spec import IndexSpec
from threestudio_redream.retrieval.index.table import Table, write_table
from threestudio_redream.retrieval.index.vectors import THUMB_SIDE, VectorFile, map_array, unit_rows, write_array
from threestudio_redream.retrieval.types import AssetRecord, record_to_json

__all__ = ["Part", "prepare_arrays", "write_rows"]


class Part:
    """One part of an index, mapped into memory.

    Args:
        folder: of the index, or the folder that holds the part's own if ``own`` is given.
        entry: of the manifest. spec: of the index. own: folder of the part, if it is not in its place yet.

    Attributes:
        table: records. text: caption vectors ``[R, D]``. views: ``[R, V, D]`` or None. thumbs: ``[R, 64, 64, 3]``
            uint8 or None.

    Raises:
        IndexDamagedError: a file is missing or does not hold what the manifest says.
    """

    def __init__(self, folder: Path, entry: PartEntry, spec: IndexSpec, own: Path | None = None) -> None:
        self.entry, self.spec = entry, spec
        own = own or folder / "parts" / entry.part_id
        rows, dim = entry.rows, spec.encoder.dim

        def name(file: str) -> str:
            return entry.files[file].path

        self.table = Table(own / "table.parquet", rows, name("table.parquet"))
        self.text = VectorFile(own / "text.npy", (rows, dim), spec.dtype, name("text.npy"))
        self.views: VectorFile | None = None
        self.thumbs: np.ndarray | None = None
        if "views.npy" in entry.files:
            shape = (rows, spec.views_per_asset, dim)
            self.views = VectorFile(own / "views.npy", shape, spec.dtype, name("views.npy"))
        if "thumbs.npy" in entry.files:
            pictures = (rows, THUMB_SIDE, THUMB_SIDE, 3)
            self.thumbs = map_array(own / "thumbs.npy", pictures, "|u1", name("thumbs.npy"))

    def arrays(self, rows: Sequence[int] | slice) -> dict[str, np.ndarray]:
        """The stored arrays of chosen rows, by file name."""
        found = {"text.npy": self.text.stored[rows]}
        if self.views is not None:
            found["views.npy"] = self.views.stored[rows]
        if self.thumbs is not None:
            found["thumbs.npy"] = self.thumbs[rows]
        return found

    def row_digests(self, rows: Sequence[int]) -> list[bytes]:
        """Content hashes of chosen rows."""
        return _row_digests(self.table.records(rows), self.arrays(rows))


def prepare_arrays(
    count: int, spec: IndexSpec, text: object, views: object = None, thumbs: object = None
) -> dict[str, np.ndarray]:
    """Check the arrays of ``count`` new rows and bring them into the stored number format, by file name.

    Raises:
        RetrievalError: a wrong shape, type, or vectors that are not of length one.
    """
    dim = spec.encoder.dim
    arrays = {"text.npy": unit_rows(text, (count, dim), spec.dtype, "caption vectors")}
    if views is not None:
        shape = (count, spec.views_per_asset, dim)
        arrays["views.npy"] = unit_rows(views, shape, spec.dtype, "view vectors")
    if thumbs is not None:
        pictures = np.asarray(thumbs)
        wanted = (count, THUMB_SIDE, THUMB_SIDE, 3)
        if pictures.shape != wanted or pictures.dtype != np.uint8:
            raise RetrievalError(
                f"thumbnails must be uint8 of shape {list(wanted)}",
                received=f"{pictures.dtype} {list(pictures.shape)}",
                fix="Scale the pictures to 64 x 64 pixels and 0..255",
            )
        arrays["thumbs.npy"] = pictures
    return arrays


def write_rows(folder: Path, records: Sequence[AssetRecord], arrays: dict[str, np.ndarray]) -> PartEntry:
    """Write the files of a part into ``folder`` (made here), rows sorted by asset id.

    Args:
        arrays: as stored, by file name, each ``[R, ...]``.

    Returns:
        Its manifest entry. The same rows give the same ``part_id``, whatever the version of the Parquet library.

    Raises:
        RetrievalError: a record cannot be stored, or an asset id is there twice.
    """
    order = sorted(range(len(records)), key=lambda row: records[row].asset_id)
    records = [records[row] for row in order]
    twice = [a.asset_id for a, b in pairwise(records) if a.asset_id == b.asset_id]
    if twice:
        raise RetrievalError(
            "two assets have the same asset_id", received=twice[0], fix="Give each asset an id of its own"
        )
    arrays = {name: np.asarray(array)[order] for name, array in arrays.items()}
    folder.mkdir(parents=True)
    write_table(folder / "table.parquet", records)
    for name, array in arrays.items():
        write_array(folder / name, array)
    digests = _row_digests(records, arrays)
    part_id = hashlib.sha256("".join([*sorted(arrays), ""]).encode() + b"".join(digests)).hexdigest()[:32]
    total = sum(int.from_bytes(digest, "big") for digest in digests) % 2**256
    files = {name: file_entry(folder / name, f"parts/{part_id}/{name}") for name in ("table.parquet", *sorted(arrays))}
    return PartEntry(part_id, len(records), f"{total:064x}", files)


def _row_digests(records: Sequence[AssetRecord], arrays: dict[str, np.ndarray]) -> list[bytes]:
    stored = [np.ascontiguousarray(array) for _, array in sorted(arrays.items())]
    digests = []
    for row, record in enumerate(records):
        values = record_to_json(record)
        values["front_deg"] = None if record.front_deg is None else float(record.front_deg)  # 90 is 90.0 once read back
        digest = hashlib.sha256(canonical_json(values).encode())
        for array in stored:
            digest.update(array[row].tobytes())
        digests.append(digest.digest())
    return digests
