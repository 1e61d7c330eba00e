"""``report.html``: one page about a run that opens anywhere, without a network and without the run's other files.

It shows what there is and says what there is not, so it can be written at any time. Whatever is read comes from the
run's own folder, is capped in size, and is escaped.
"""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.files import atomic_write_text, visible

__all__ = ["prompt_of", "write_report"]

MAX_TEXT, MAX_PICTURE, MAX_VIDEO, MAX_ROWS = 2**24, 2**25, 2**23, 100_000
VIEWS = 8
SIDE = 192
#: Curves that are drawn, if they were logged.
CURVES = (
    "train/loss_vsd",
    "train/loss_sds",
    "train/grad_norm",
    "train/opacity",
    "train/front_margin",
    "train/loss_prior_rgb",
)

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --faint: #888; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; }
h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
.faint, figcaption { color: var(--faint); }
code { overflow-wrap: anywhere; }
pre { overflow: auto; }
table { border-collapse: collapse; }
td, th { text-align: left; padding: .25rem .9rem .25rem 0; vertical-align: middle; }
.row { display: flex; flex-wrap: wrap; gap: .6rem; }
figure { margin: 0; }
img, video { border-radius: 6px; max-width: 100%; }
svg { border: 1px solid var(--line); border-radius: 6px; }
polyline { fill: none; stroke: #36c; stroke-width: 1.5; }
"""
_NOTHING = '<p class="faint">Nothing was recorded.</p>'


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
    retrieved = _json(save / "retrieved" / "retrieved.json")
    prompt = prompt_of(trial)
    parts = [
        f"<h1>{html.escape(prompt)}</h1>",
        f'<p class="faint">{html.escape(trial.name)}</p>',
        _section("Result", _result(save)),
        _section("Retrieved assets", _assets(save / "retrieved", retrieved)),
        _section("Adaptation of the 2D prior", _adaptation(_json(save / "adapter" / "adaptation.json"))),
        _section("Training", _curves(trial / "csv_logs")),
        _section("Validation", _pictures(_newest(save.glob("it*-val.png"), 4), 1024)),
        _section("Command and configuration", _provenance(trial)),
    ]
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(prompt)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )
    target = trial / "report.html"
    atomic_write_text(target, page)
    return target


# ---------------------------------------------------------------------- sections
def _section(title: str, body: str) -> str:
    return f"<h2>{title}</h2>{body or _NOTHING}"


def prompt_of(trial: Path) -> str:
    """The prompt of a run; the folder's name if it is not known."""
    retrieved = _json(trial / "save" / "retrieved" / "retrieved.json")
    if isinstance(retrieved, dict) and isinstance(retrieved.get("prompt"), str):
        return str(retrieved["prompt"])
    for line in _text(trial / "configs" / "parsed.yaml").splitlines():
        if line.strip().startswith("prompt: "):
            return line.split(":", 1)[1].strip().strip("'\"")
    return trial.name


def _result(save: Path) -> str:
    folders = _newest((path for path in save.glob("it*-test") if path.is_dir()), 1)
    frames = sorted(visible(folders[0].glob("*.png")), key=_number_of) if folders else []
    # Test azimuths go round with both ends: the last view is the first again.
    count = len(frames) - 1
    shown = [frames[round(i * count / VIEWS)] for i in range(VIEWS)] if count >= VIEWS else frames
    cells = [
        _figure(path, SIDE, f"{360 * i // max(len(shown), 1)}°" if count >= VIEWS else path.stem)
        for i, path in enumerate(shown)
    ]
    body = f'<div class="row">{"".join(cells)}</div>' if cells else ""
    for video in _newest(save.glob("it*-test.mp4"), 1):
        if video.stat().st_size <= MAX_VIDEO:
            data = base64.b64encode(video.read_bytes()).decode()
            body += f'<p><video controls loop muted src="data:video/mp4;base64,{data}"></video></p>'
    rows = []
    for mesh in sorted(visible(save.glob("it*-export/**/*.glb")))[:16]:
        about = _json(mesh.with_suffix(".json"))
        faces = f"{int(about['faces']):,} faces" if isinstance(about, dict) and "faces" in about else ""
        where = html.escape(mesh.relative_to(save.parent).as_posix())
        size = f"{mesh.stat().st_size / 2**20:.1f} MiB"
        rows.append(f'<tr><td><a href="{where}">{where}</a></td><td>{size}</td><td>{faces}</td></tr>')
    return body + (f"<table>{''.join(rows)}</table>" if rows else "")


def _assets(folder: Path, retrieved: Any) -> str:
    if not isinstance(retrieved, dict):
        return ""
    rows = []
    for number, row in enumerate(retrieved.get("references", [])[:16], 1):
        pictures = sorted(folder.glob(f"{number}-*.png"))
        used = "used" if _number(row.get("reliability")) > 0 else "not used: too unlike the prompt"
        cells = (
            _figure(pictures[0], 128, "") if pictures else "",
            f"<b>{_escaped(row.get('name'))}</b><br>{_escaped(row.get('caption'))}",
            f"{_escaped(row.get('author'))}<br>{_escaped(row.get('licence') or 'licence unknown')}",
            f"text {_number(row.get('score_text')):.3f}<br>image {_number(row.get('score_image')):.3f}",
            f"reliability {_number(row.get('reliability')):.2f}<br>{used}",
            "front known" if row.get("front_known") else "front unknown",
        )
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    threshold = (
        f'<p class="faint">Nothing below an image score of {_number(retrieved.get("threshold")):.3f} is used.</p>'
    )
    return f"<table>{''.join(rows)}</table>{threshold}"


def _adaptation(report: Any) -> str:
    if not isinstance(report, dict):
        return ""
    rows = []
    for row in report.get("history", [])[:200]:
        right = "" if row.get("view_accuracy") is None else f"{_number(row['view_accuracy']):.0%}"
        cells = (f"{_number(row.get('step')):.0f}", f"{_number(row.get('loss')):.4f}", right)
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f"<table><tr><th>step</th><th>loss</th><th>views right</th></tr>{''.join(rows)}</table>"


def _curves(logs: Path) -> str:
    series: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(logs.glob("version_*/metrics.csv")):
        reader = csv.DictReader(io.StringIO(_text(path)))
        for _, row in zip(range(MAX_ROWS), reader):
            for name in CURVES:
                value = _number(row.get(name) or "nan")
                if math.isfinite(value):
                    series.setdefault(name, []).append((_number(row.get("step") or "0"), value))
    return f'<div class="row">{"".join(_plot(name, points) for name, points in series.items())}</div>' if series else ""


def _plot(name: str, points: Sequence[tuple[float, float]], width: int = 300, height: int = 120) -> str:
    steps, values = zip(*points, strict=True)
    low, high = min(values), max(values)
    left, right = min(steps), max(steps)
    stride = max(len(points) // 600, 1)
    path = " ".join(
        f"{4 + (width - 8) * (x - left) / max(right - left, 1e-9):.1f},"
        f"{height - 4 - (height - 8) * (y - low) / max(high - low, 1e-12):.1f}"
        for x, y in points[::stride]
    )
    caption = f"{html.escape(name)}: {low:.3g} to {high:.3g}, last {values[-1]:.3g}"
    return (
        f'<figure><svg width="{width}" height="{height}" role="img" aria-label="{caption}">'
        f'<polyline points="{path}"/></svg><figcaption>{caption}</figcaption></figure>'
    )


def _pictures(paths: Sequence[Path], side: int) -> str:
    return "".join(f"<p>{_figure(path, side, path.stem)}</p>" for path in paths)


def _provenance(trial: Path) -> str:
    command, config = _text(trial / "cmd.txt").strip(), _text(trial / "configs" / "parsed.yaml")
    body = f"<p><code>{html.escape(command)}</code></p>" if command else ""
    if config:
        body += f"<details><summary>Configuration</summary><pre>{html.escape(config)}</pre></details>"
    attribution = _text(trial / "save" / "retrieved" / "ATTRIBUTION.md")
    if attribution:
        body += f"<details><summary>Attribution</summary><pre>{html.escape(attribution)}</pre></details>"
    return body


# ---------------------------------------------------------------------- pieces
def _figure(path: Path, side: int, caption: str) -> str:
    try:
        if path.stat().st_size > MAX_PICTURE:
            raise OSError("too large")
        with Image.open(path) as image:
            image.thumbnail((side, side))
            sink = io.BytesIO()
            image.convert("RGB").save(sink, "PNG", optimize=True)
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        return f'<span class="faint">{html.escape(path.name)} cannot be shown</span>'
    data = base64.b64encode(sink.getvalue()).decode()
    said = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{html.escape(caption or path.stem)}" src="data:image/png;base64,{data}">{said}</figure>'


def _number_of(path: Path) -> int:
    return int(path.stem) if path.stem.isdigit() else 0


def _newest(paths: Iterable[Path], count: int) -> list[Path]:
    """The last ``count`` by step; names start with ``it<step>-``."""

    def step(path: Path) -> int:
        digits = path.name[2:].split("-")[0]
        return int(digits) if digits.isdigit() else -1

    return sorted(paths, key=step)[-count:]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace") if path.stat().st_size <= MAX_TEXT else ""
    except OSError:
        return ""


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path) or "null")
    except ValueError:
        return None


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _escaped(value: Any) -> str:
    return html.escape(str(value or ""))
