"""An index of real meshes from public packages, built and searched by the commands that users have.

    python benchmarks/retrieval_real.py --work DIR [--encoder hf:openai/clip-vit-large-patch14]

Several hundred named meshes (:data:`fetch_assets.SOURCES`) are put into one folder with nothing said about them but
their file names. What cannot be used must be listed with a reason. Then each indexed mesh is searched for by its name.
The mini CLIP has never seen such objects or words: its figures say how far file names alone carry.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _common import ROOT, environment, write_results
from fetch_assets import MESH_SUFFIXES, SOURCES, fetch

from threestudio_redream.retrieval.encoders import open_encoder
from threestudio_redream.retrieval.index.reader import Index

ASKED = 300


def redream(*words: object) -> str:
    """Standard output of the command, in a process of its own."""
    command = [sys.executable, "-m", "threestudio_redream.cli", *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def kind_of_reason(reason: str) -> str:
    """A reason without the names and numbers that belong to one file."""
    text = re.sub(r"^[^\s:]+\.\w+: ", "", reason)  # the name of the file
    text = re.sub(r"those of \S+", "those of another asset", text.partition(" (")[0].partition(":")[0])
    return re.sub(r"\d[\d.,]*", "N", text)


def by_name(index: Index) -> dict[str, Any]:
    """Recall of an asset by its own caption, over at most ``ASKED`` captions that only one asset has."""
    captions = collections.Counter(record.caption for record in index.records())
    records = [record for record in index.records() if captions[record.caption] == 1]
    chosen = records[:: max(len(records) // ASKED, 1)]
    pooled, first, ten, took = 0, 0, 0, []
    for record in chosen:
        result = index.search(record.caption, 10)
        took.append(result.took_ms)
        ids = [hit.record.asset_id for hit in result.results]
        first += ids[0] == record.asset_id
        ten += record.asset_id in ids
        text_only = index.search(record.caption, 1, pool=1).results[0]
        pooled += text_only.record.asset_id == record.asset_id
    return {
        "asked": len(chosen),
        "caption_recall_at_1": pooled / len(chosen),
        "view_recall_at_1": first / len(chosen),
        "view_recall_at_10": ten / len(chosen),
        "median_ms": sorted(took)[len(took) // 2],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for downloads, meshes and the index")
    parser.add_argument("--encoder", default="mini")
    arguments = parser.parse_args()
    work: Path = arguments.work.resolve()
    meshes, cache, out = work / "meshes", work / "cache", work / "index"
    cache.mkdir(parents=True, exist_ok=True)
    for name, package in SOURCES.items():
        if not (meshes / name).is_dir():
            fetch(package, cache, meshes / name)
    files = sum(path.suffix.lower() in MESH_SUFFIXES for path in meshes.rglob("*"))
    started = time.perf_counter()
    redream("index", "build", meshes, "--out", out, "--encoder", arguments.encoder)
    built = time.perf_counter() - started
    encoder = open_encoder(arguments.encoder, texts_only=True)
    index = Index.open(out, encoder)
    reasons = collections.Counter(kind_of_reason(str(row["reason"])) for row in index.rejected())
    results = {
        "packages": {name: package.name for name, package in SOURCES.items()},
        "files": files,
        "indexed": len(index),
        "rejected": dict(reasons.most_common()),
        "build_s": round(built, 1),
        "sound": json.loads(redream("index", "verify", out, "--json"))["ok"],
        "encoder": arguments.encoder,
        "by_name": by_name(index),
    }
    write_results("retrieval_real", {"environment": environment(), "results": results})
    sys.stdout.write(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
