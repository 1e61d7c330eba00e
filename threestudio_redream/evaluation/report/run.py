"""``report.html``: one page about a run that opens anywhere, without a network and without the run's other files.

It shows what there is and says what there is not, so it can be written at any time. Whatever is read comes from the
run's own folder, is capped in size, and is escaped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from threestudio_redream.errors import ConfigError
from threestudio_redream.evaluation.report.charts import curve, rose
from threestudio_redream.evaluation.report.markup import (
    details,
    escaped,
    figure,
    page,
    section,
    strip,
    table,
    video,
)
from threestudio_redream.evaluation.report.reading import (
    newest,
    prompt_of,
    read_curves,
    read_json,
    read_number,
    read_text,
    turn_frames,
)
from threestudio_redream.evaluation.report.view3d import view_3d
from threestudio_redream.runtime.files import atomic_write_text, visible

__all__ = ["write_report"]

SIDE = 256
AROUND = 8
MAX_MESHES = 16
#: Curves that are drawn, if they were logged.
CURVES = (
    "train/loss_vsd",
    "train/loss_sds",
    "train/loss_lora",
    "train/loss_prior_rgb",
    "train/loss_prior_mask",
    "train/loss_prior_normal",
    "train/grad_norm",
    "train/opacity",
    "train/front_margin",
)
FRONTS = tuple(f"train/front_{azimuth:03d}" for azimuth in range(360))


def write_report(trial: Path) -> Path:
    """Write ``report.html`` into a trial folder (the one with ``configs`` and ``save``) and return its path.

    Raises:
        ConfigError: the folder is not that of a run.
    """
    save = trial / "save"
    if not save.is_dir():
        raise ConfigError(
            "This is not the folder of a run", received=str(trial), fix="Give the folder with save in it."
        )
    prompt = prompt_of(trial)
    retrieved = read_json(save / "retrieved" / "retrieved.json")
    meshes = sorted(visible(save.glob("it*-export/**/*.glb")))[:MAX_MESHES]
    body = [
        f"<h1>{escaped(prompt)}</h1>",
        f'<p class="faint">{escaped(_subtitle(trial))}</p>',
        _hero(save, meshes, prompt),
        section("Four sides", _four_sides(save, prompt)),
        section("All around", _around(save, prompt)),
        section("Files", _files(save, meshes)),
        section("Retrieved assets", _assets(save / "retrieved", retrieved)),
        section("Adaptation of the 2D prior", _adaptation(read_json(save / "adapter" / "adaptation.json"))),
        section("Training", _training(trial / "csv_logs")),
        section("Validation", _validation(save, prompt)),
        section("Scores", _scores(read_json(trial / "result.json"))),
        section("Command and configuration", _provenance(trial)),
    ]
    target = trial / "report.html"
    atomic_write_text(target, page(prompt, "".join(body)))
    return target


def _subtitle(trial: Path) -> str:
    config = read_text(trial / "configs" / "parsed.yaml")
    found = [trial.name]
    for key, words in (("system_type", "{}"), ("seed", "seed {}"), ("max_steps", "{} steps")):
        match = re.search(rf"^\s*{key}: (\S+)$", config, re.MULTILINE)
        if match:
            found.append(words.format(match.group(1)))
    return " · ".join(found)


def _hero(save: Path, meshes: Sequence[Path], prompt: str) -> str:
    parts = [view_3d(path, prompt) for path in newest(meshes)]
    parts += [part for path in newest(save.glob("it*-test.mp4")) if (part := video(path, f"Turntable of {prompt}"))]
    return f'<div class="hero">{"".join(parts)}</div>' if parts else ""


def _four_sides(save: Path, prompt: str) -> str:
    frames = turn_frames(save)
    views = [
        (name, frames[round(share * len(frames))])
        for name, share in (("front", 0.0), ("side", 0.25), ("back", 0.5))
        if len(frames) >= 4
    ]
    above = [path for folder in newest(save.glob("it*-overhead")) for path in visible(folder.glob("*.png"))]
    views += [("overhead", path) for path in sorted(above)[:1]]
    return strip([figure(path, SIDE, name, f"{prompt}, {name} view") for name, path in views], "four")


def _around(save: Path, prompt: str) -> str:
    frames = turn_frames(save)
    shown = min(AROUND, len(frames))
    cells = []
    for i in range(shown):
        azimuth = f"{360 * i / shown:.0f}°"
        cells.append(figure(frames[round(i * len(frames) / shown)], SIDE, azimuth, f"{prompt} from {azimuth}"))
    return strip(cells, "eight")


def _files(save: Path, meshes: Sequence[Path]) -> str:
    rows = []
    for mesh in meshes:
        about = read_json(mesh.with_suffix(".json"))
        faces = read_number(about.get("faces")) if isinstance(about, dict) else math.nan
        where = escaped(mesh.relative_to(save.parent).as_posix())
        rows.append(
            (
                f'<a href="{where}">{where}</a>',
                f"{mesh.stat().st_size / 2**20:.1f} MiB",
                "" if math.isnan(faces) else f"{faces:,.0f} faces",
            )
        )
    return table((), rows)


def _assets(folder: Path, retrieved: Any) -> str:
    if not isinstance(retrieved, dict):
        return ""
    references = retrieved.get("references")
    cards = []
    for number, row in enumerate(references[:16] if isinstance(references, list) else [], 1):
        if not isinstance(row, dict):
            continue
        pictures = sorted(visible(folder.glob(f"{number}-*.png")))
        used = "used" if read_number(row.get("reliability")) > 0 else "not used: too unlike the prompt"
        front = "front known" if row.get("front_known") else "front unknown"
        lines = (
            f"<b>{escaped(row.get('name'))}</b>",
            escaped(row.get("caption")),
            f"{escaped(row.get('author') or 'author unknown')}, {escaped(row.get('licence') or 'licence unknown')}",
            f"text {read_number(row.get('score_text')):.3f}, image {read_number(row.get('score_image')):.3f}",
            f"reliability {read_number(row.get('reliability')):.2f}, {used}; {front}",
        )
        shown = figure(pictures[0], 192, "", f"Render of {row.get('caption')}") if pictures else "<span></span>"
        cards.append(f'<div class="card">{shown}<div>{"".join(f"<p>{line}</p>" for line in lines)}</div></div>')
    limit = (
        f'<p class="faint">Nothing below an image score of {read_number(retrieved.get("threshold")):.3f} is used.</p>'
    )
    return f'<div class="cards">{"".join(cards)}</div>{limit}'


def _adaptation(report: Any) -> str:
    history = report.get("history") if isinstance(report, dict) else None
    if not isinstance(history, list):
        return ""
    rows = []
    for row in history[:200]:
        if isinstance(row, dict):
            right = "" if row.get("view_accuracy") is None else f"{read_number(row['view_accuracy']):.0%}"
            rows.append((f"{read_number(row.get('step')):.0f}", f"{read_number(row.get('loss')):.4f}", right))
    return table(("step", "loss", "views right"), rows)


def _training(logs: Path) -> str:
    series = read_curves(logs, (*CURVES, *FRONTS))
    fronts = [(float(name[-3:]), series.pop(name)[-1][1]) for name in FRONTS if name in series]
    charts = [curve(name, points) for name, points in series.items()]
    if fronts:
        said = "How much the last training renders look like a front, by where they were taken from."
        charts.append(rose(fronts, said))
    return f'<div class="charts">{"".join(charts)}</div>' if charts else ""


def _validation(save: Path, prompt: str) -> str:
    return "".join(
        figure(path, 1024, path.stem.split("-")[0].replace("it", "step "), f"{prompt}, validation views")
        for path in newest(save.glob("it*-val.png"), 4)
    )


def _scores(result: Any) -> str:
    metrics = result.get("metrics") if isinstance(result, dict) else None
    if not isinstance(metrics, dict):
        return '<p class="faint">None here: <code>redream eval</code> prints those of this folder.</p>'
    return table((), [(escaped(name), f"{read_number(value):.4g}") for name, value in list(metrics.items())[:100]])


def _provenance(trial: Path) -> str:
    command = read_text(trial / "cmd.txt").strip()
    body = f"<p><code>{escaped(command)}</code></p>" if command else ""
    body += details("Configuration", read_text(trial / "configs" / "parsed.yaml"))
    body += details("Packages and commit", read_text(trial / "code" / "environment.json"))
    return body + details("Attribution", read_text(trial / "save" / "retrieved" / "ATTRIBUTION.md"))
