"""The shipped index under questions it was not made for: phrasing, cold and warm time, orientation.

    python benchmarks/retrieval_mini.py

1. ``asked``: 200 prompts in phrasings that the mini CLIP was not trained on (other word order, synonyms, styles, view
   words), for every kind in turn with finishes drawn from all of them, whether the library has that kind in that finish
   or not. Right is an asset of the asked kind. ``in_library``: the same with finishes that the library has.
2. ``time``: ``redream search "a red robot"`` as a fresh process, and a query in a process that has the index open.
3. ``orientation``: index assets turned by a random yaw; error of the front that the aligner finds, and for kinds
   without a front how often it says so. ``unseen`` does it with objects of the test seeds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import ROOT, environment, summary, time_calls, write_results

from threestudio_redream.assets.normalise import normalise
from threestudio_redream.retrieval.encoders import open_encoder
from threestudio_redream.retrieval.index.reader import Index
from threestudio_redream.retrieval.orientation import ALIGN_VIEWS, ClipAligner, wrap_degrees
from threestudio_redream.retrieval.views import render_views
from tools.mini.descriptors import DESCRIPTORS
from tools.mini.kinds import build, load_kinds
from tools.mini.seeds import instance_seed
from tools.mini.words import DESCRIPTOR_SYNONYMS, VIEW_PHRASES, noun_choices
from tools.mini.write_assets import index_assets

#: None of them can come out of ``tools.mini.captions.clip_caption``.
PHRASINGS = (
    "{noun}, {word}",
    "this is my {noun}, it is {word}",
    "a photo of one {noun} painted {word}",
    "{view} of your beautiful {word} {noun}",
    "{noun} made of {word}, {view}",
    "some {word} thing which is a {noun}",
    "looking at a {noun} from above, {word} colour",
    "the {word} one, a {noun}",
    "a clay model of the {noun} with {word} style",
    "{word} {noun} {view} on the studio ground",
)


def prompts(count: int, seed: int, *, in_library: bool) -> list[tuple[str, str]]:
    """(prompt, kind); words and synonyms at random."""
    rng = np.random.default_rng(seed)
    kinds = list(load_kinds())
    held: dict[str, list[str]] = {}
    for kind, descriptor, _ in index_assets():
        held.setdefault(kind, []).append(descriptor)
    made = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        descriptor = str(rng.choice(held[kind] if in_library else DESCRIPTORS))
        text = PHRASINGS[number % len(PHRASINGS)].format(
            noun=rng.choice(noun_choices(kind)),
            word=rng.choice((descriptor, *DESCRIPTOR_SYNONYMS[descriptor])),
            view=rng.choice(VIEW_PHRASES),
        )
        made.append((text, kind))
    return made


def ask(index: Index, kind_of: dict[str, str], asked: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """How often the first, and any of the first three, is of the asked kind."""
    first, three, wrong = 0, 0, []
    for text, kind in asked:
        found = [kind_of[hit.record.asset_id] for hit in index.search(text, 3).results]
        first += found[0] == kind
        three += kind in found
        if found[0] != kind:
            wrong.append(f"{text} -> {', '.join(found)}")
    return {"prompts": len(asked), "top_1": first / len(asked), "top_3": three / len(asked), "wrong": wrong}


def times(folder: Path, index: Index) -> dict[str, Any]:
    """Cold: a process of its own, five times. Warm: 50 queries with texts that differ."""
    command = [sys.executable, "-m", "threestudio_redream.cli", "search", "a red robot", "--index", str(folder)]
    cold = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        cold.append(time.perf_counter() - started)
    texts = iter([text for text, _ in prompts(60, 5, in_library=False)])
    warm = time_calls(lambda: index.search(next(texts), 3), 50, warmup=3)
    return {"cold_s": [round(value, 3) for value in cold], "warm": summary(warm)}


def orientation(encoder: Any, assets: Sequence[tuple[str, str, int]], seed: int) -> dict[str, Any]:
    """Turn each object by a random yaw and ask where its front is."""
    aligner, kinds, rng = ClipAligner(encoder), load_kinds(), np.random.default_rng(seed)
    errors: list[float] = []
    unknown_with_front, unknown_without, without = 0, 0, 0
    for kind, descriptor, at in assets:
        yaw = float(rng.uniform(-180.0, 180.0))
        turned = normalise(build(kind, descriptor, at), up="+z", front="+x", yaw_deg=yaw)
        found = aligner.align(render_views(turned, ALIGN_VIEWS, encoder.image_size).images, f"a {descriptor} {kind}")
        if not kinds[kind].front:
            without += 1
            unknown_without += found.front_deg is None
        elif found.front_deg is None:
            unknown_with_front += 1
        else:
            errors.append(abs(wrap_degrees(found.front_deg - yaw)))
    fronted = len(errors) + unknown_with_front
    return {
        "with_front": fronted,
        "within_30_deg": sum(error <= 30.0 for error in errors) / fronted,
        "unknown_with_front": unknown_with_front / fronted,
        "median_error_deg": float(np.median(errors)),
        "without_front": without,
        "unknown_without_front": unknown_without / max(without, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, default=ROOT / "retrieval_index" / "mini")
    parser.add_argument("--encoder", default="", help="if not the one the index names")
    parser.add_argument("--prompts", type=int, default=200)
    arguments = parser.parse_args()
    encoder = open_encoder(arguments.encoder or "mini")
    index = Index.open(arguments.index, encoder)
    names = sorted(load_kinds(), key=len, reverse=True)
    kind_of = {
        record.asset_id: next(name for name in names if name in record.caption.split()) for record in index.records()
    }
    unseen = [
        (kind, DESCRIPTORS[(3 * at + number) % len(DESCRIPTORS)], instance_seed("test", kind, at))
        for number, kind in enumerate(load_kinds())
        for at in range(2)
    ]
    results = {
        "assets": len(index),
        "asked": ask(index, kind_of, prompts(arguments.prompts, 1, in_library=False)),
        "in_library": ask(index, kind_of, prompts(arguments.prompts, 2, in_library=True)),
        "time": times(arguments.index, index),
        "orientation": orientation(encoder, index_assets(), 3),
        "orientation_unseen": orientation(encoder, unseen, 4),
    }
    write_results("retrieval_mini", {"environment": environment(), "results": results})
    for name, value in results.items():
        shown = {k: v for k, v in value.items() if k != "wrong"} if isinstance(value, dict) else value
        sys.stdout.write(f"{name}: {shown}\n")


if __name__ == "__main__":
    main()
