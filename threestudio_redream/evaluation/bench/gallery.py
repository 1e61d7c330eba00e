"""``gallery.html``: all runs of a sweep on one page, method beside method, turned together with one slider."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from threestudio_redream.evaluation.bench.methods import METHODS
from threestudio_redream.evaluation.bench.suites import Suite
from threestudio_redream.evaluation.bench.tables import table_rows
from threestudio_redream.evaluation.bench.turns import SIDE, VIEWS, turn_of
from threestudio_redream.evaluation.report.markup import escaped, figure, page, picture_data, section, table
from threestudio_redream.evaluation.report.reading import newest, read_json, read_number
from threestudio_redream.evaluation.report.view3d import view_3d
from threestudio_redream.runtime.files import atomic_write_text, visible

__all__ = ["write_gallery"]

SIDES = (("front", 0), ("side", VIEWS // 4), ("back", VIEWS // 2))
MAX_VIEWS_3D, MAX_ASSETS = 4, 3


def write_gallery(
    path: Path,
    suite: Suite,
    rows: Sequence[Mapping[str, Any]],
    summaries: Mapping[str, Any],
    folder: Callable[[Mapping[str, Any]], Path],
) -> Path:
    """Write the page to ``path`` and return it.

    Args:
        rows: of the runs, failed ones too. summaries: what ``table.json`` holds. folder: of a row's run.
    """
    failed = {name: sum(row["method"] == name and row["status"] != "ok" for row in rows) for name in METHODS}
    head, lines = table_rows(summaries, suite.columns, {name: count for name, count in failed.items() if count})
    sprites: list[str] = []
    prompts = [
        section(escaped(prompt), _prompt(prompt, [row for row in rows if row["prompt"] == prompt], folder, sprites))
        for prompt in dict.fromkeys(row["prompt"] for row in rows)
    ]
    slider = (
        '<p class="turner"><label for="turn">Turn everything</label> '
        f'<input id="turn" type="range" min="0" max="{VIEWS - 1}" value="0" aria-valuetext="0°">'
        ' <output for="turn">0°</output></p>'
    )
    title = f"{suite.name}: {len(rows)} runs"
    script = resources.files(__package__).joinpath("static").joinpath("gallery.js").read_text("utf-8")
    body = [
        f"<h1>{escaped(title)}</h1>",
        '<p class="faint">Every run, not selected. Intervals are 95 %.</p>',
        section(
            "Figures",
            table([escaped(cell) for cell in head], [[escaped(cell) for cell in row] for row in lines], "figures"),
        ),
        _views_3d(rows, folder),
        slider,
        *prompts,
        f"<style>{''.join(sprites)}</style><script>{script}</script>",
    ]
    atomic_write_text(path, page(title, "".join(body)))
    return path


def _prompt(
    prompt: str,
    rows: Sequence[Mapping[str, Any]],
    folder: Callable[[Mapping[str, Any]], Path],
    sprites: list[str],
) -> str:
    methods = [name for name in METHODS if any(row["method"] == name for row in rows)]
    parts = _retrieved([folder(row) / "save" / "retrieved" for row in rows if row["method"] == "redream"])
    for name in methods:
        of_method = [row for row in rows if row["method"] == name]
        runs = [_run(prompt, row, folder(row), sprites) for row in sorted(of_method, key=lambda row: row["seed"])]
        parts.append(f"<div><h3>{escaped(METHODS[name].title)}</h3>{''.join(runs)}</div>")
    return f'<div class="methods">{"".join(parts)}</div>'


def _retrieved(folders: Sequence[Path]) -> list[str]:
    """What ReDream found for a prompt, by the first run that says so: at most three assets with scores and licences."""
    for folder in folders:
        found = read_json(folder / "retrieved.json")
        references = found.get("references") if isinstance(found, dict) else None
        cells = []
        for number, row in enumerate(references[:MAX_ASSETS] if isinstance(references, list) else [], 1):
            if not isinstance(row, dict):
                continue
            said = f"{row.get('name')}, image {read_number(row.get('score_image')):.3f}, {row.get('licence')}"
            pictures = sorted(visible(folder.glob(f"{number}-*.png")))
            cells += [figure(path, SIDE, said, f"Render of {row.get('caption')}") for path in pictures[:1]]
        if cells:
            return [f'<div><h3>Retrieved</h3><div class="sides">{"".join(cells)}</div></div>']
    return []


def _run(prompt: str, row: Mapping[str, Any], folder: Path, sprites: list[str]) -> str:
    label = escaped(f"seed {row['seed']}")
    if row["status"] != "ok":
        return (
            f'<figure class="run"><p>failed: {escaped(row.get("reason"))}</p><figcaption>{label}</figcaption></figure>'
        )
    data = _sprite(folder)
    if not data:
        return f'<figure class="run"><p class="faint">no test views</p><figcaption>{label}</figcaption></figure>'
    name = f"s{len(sprites)}"
    sprites.append(f".{name} span{{background-image:url({data})}}")
    cells = "".join(f'<span data-at="{at}" style="background-position-x:{_shift(at)}"></span>' for _, at in SIDES)
    above = [shot for found in newest((folder / "save").glob("it*-overhead")) for shot in visible(found.glob("*.png"))]
    overhead = "".join(
        f'<img src="{shown}" alt="overhead">' for shot in sorted(above)[:1] if (shown := picture_data(shot, SIDE))
    )
    seen = ", ".join([*(side for side, _ in SIDES), *(["overhead"] if overhead else [])])
    alt = escaped(f"{prompt}, {METHODS[row['method']].title}, {label}: {seen}")
    return (
        f'<figure class="run"><div class="sides {name}" role="img" aria-label="{alt}">{cells}{overhead}</div>'
        f"<figcaption>{label}{escaped(_verdict(row.get('metrics', {})))}</figcaption></figure>"
    )


def _verdict(metrics: Mapping[str, Any]) -> str:
    """What the judge says, where it was asked, and the CLIP score."""
    words = []
    if all(f"judge/{name}" in metrics for name in ("janus", "one_front", "recognised", "descriptor_right")):
        fronts = "Janus" if metrics["judge/janus"] else "one front" if metrics["judge/one_front"] else "no front"
        words += [fronts, "recognised" if metrics["judge/recognised"] else "not recognised"]
        words.append("finish as asked" if metrics["judge/descriptor_right"] else "another finish")
    words += [f"CLIP {value:.3f}" for name, value in metrics.items() if name.startswith("clip_score[")][:1]
    return "".join(f" · {word}" for word in words)


def _shift(at: int) -> str:
    return f"{100 * at / (VIEWS - 1):.4f}%"


def _sprite(folder: Path) -> str:
    """The turn of a run as a ``data:`` address; empty if it has none."""
    data = turn_of(folder)
    return "" if data is None else f"data:image/webp;base64,{base64.b64encode(data).decode()}"


def _views_3d(rows: Sequence[Mapping[str, Any]], folder: Callable[[Mapping[str, Any]], Path]) -> str:
    """3D views of the exported meshes of the first prompt and seed that have some, one per method."""
    views: dict[str, str] = {}
    chosen: tuple[Any, Any] | None = None
    for row in rows:
        key = (row["prompt"], row["seed"])
        meshes = newest(sorted((folder(row) / "save").glob("it*-export/*.glb")))
        if row["status"] != "ok" or not meshes or chosen not in (None, key) or len(views) == MAX_VIEWS_3D:
            continue
        chosen = key
        title = f"{row['prompt']}, {METHODS[row['method']].title}"
        views.setdefault(
            row["method"],
            f"<figure>{view_3d(meshes[0], title)}<figcaption>{escaped(title)}</figcaption></figure>",
        )
    return section("In 3D", f'<div class="hero">{"".join(views.values())}</div>') if views else ""
