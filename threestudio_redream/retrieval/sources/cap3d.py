"""Cap3D's captions: a CSV of a million rows ``uid,caption`` without a header, read as a stream."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from threestudio_redream.retrieval.errors import SourceError
from threestudio_redream.retrieval.sources.captions import clean_text

__all__ = ["read_cap3d"]

MAX_ROWS = 5_000_000
_MAX_FIELD = 64 * 1024
_UID = re.compile(r"[0-9a-f]{32}")


def read_cap3d(path: str | Path, skipped: Counter[str] | None = None) -> Iterator[tuple[str, str]]:
    """Yield ``(uid, caption)``; memory grows by about 100 bytes a row, for finding repeated uids.

    Args:
        path: the CSV. Cap3D also ships pickles; those are never read.
        skipped: counts what was left out, by reason.

    Raises:
        SourceError: no such file, not a CSV, or above a cap.
    """
    path, skipped = Path(path), skipped if skipped is not None else Counter()
    if path.suffix.lower() in (".pkl", ".pickle", ".pt", ".pth"):
        raise SourceError(
            "captions in a pickle can run code when they are read", received=path.name, fix="Download the CSV instead"
        )
    csv.field_size_limit(_MAX_FIELD)
    seen: set[bytes] = set()
    number = 0
    try:
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                if number > MAX_ROWS:
                    raise SourceError(f"{path.name}: the file has too many rows", received=number, fix="Check it")
                if len(row) < 2:
                    skipped["rows that are not uid,caption"] += 1
                    continue
                uid = row[0].strip().lower().removesuffix(".glb")
                if _UID.fullmatch(uid) is None:
                    skipped["ids that are no uid of Objaverse 1.0 (a header, or Objaverse-XL)"] += 1
                    continue
                caption = clean_text(",".join(row[1:]))  # commas without quotes are in the wild
                if not caption:
                    skipped["empty captions"] += 1
                    continue
                key = bytes.fromhex(uid)
                if key in seen:
                    skipped["second captions of one uid"] += 1
                    continue
                seen.add(key)
                yield uid, caption
    except csv.Error as error:
        raise SourceError(
            f"{path.name}: the captions are not a CSV",
            received=f"row {number + 1}: {error}"[:200],
            fix="Download it again",
        ) from error
    except OSError as error:
        raise SourceError(
            f"{path.name}: the captions cannot be read", received=error.strerror, fix="Check it"
        ) from error
