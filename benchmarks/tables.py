"""Write docs/performance.md from the raw results; every figure there comes from benchmarks/results.

python benchmarks/tables.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

INTRO = """# Performance

Made by `python benchmarks/tables.py` from the files in `benchmarks/results`. Each section names the command,
machine, commit and the load of the machine when it was measured. Run one again: `python benchmarks/<name>.py`.
"""


def load(name: str) -> dict[str, Any] | None:
    """One result file, or None if that benchmark has not been run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def provenance(name: str, environment: dict[str, Any]) -> str:
    """Where a table comes from, in one paragraph."""
    load_average = environment.get("load_average") or ["?"]
    return (
        f"`{environment['command']}`, commit `{environment['commit'][:10]}`, {environment.get('cpu', 'CPU')}, "
        f"load {load_average[0]} at the end. Raw: [`{name}.json`](../benchmarks/results/{name}.json)."
    )


def fit_asset(results: dict[str, Any]) -> list[str]:
    lines = [
        "## Fitting real meshes",
        "",
        provenance("fit_asset", results["environment"]),
        "",
        "Held-out views at 128 px on white: field, and the exported GLB loaded and rendered again. Seconds are",
        "those of the whole process, from start to exported mesh.",
        "",
        "| mesh | seconds | field PSNR, dB | field IoU | GLB PSNR, dB | GLB IoU |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for run in results["runs"]:
        if "error" in run:
            lines.append(f"| {run['mesh']} | {run['seconds']:.0f} | {run['error']} | | | |")
            continue
        field, mesh = run["field"], run["glb"]
        lines.append(
            f"| {run['mesh']} | {run['seconds']:.0f} | {field['psnr']:.2f} | {field['iou']:.4f} "
            f"| {mesh['psnr']:.2f} | {mesh['iou']:.4f} |"
        )
    return [*lines, "", f"Peak memory of the largest run: {results['peak_rss_gib']} GiB.", ""]


def fit_step(results: dict[str, Any]) -> list[str]:
    parts = list(results["pruned"]["parts_ms"])
    lines = [
        "## One training step of fit-asset",
        "",
        provenance("fit_step", results["environment"]),
        "",
        f"{results['rays']} rays, milliseconds (medians).",
        "",
        "| | samples | step | " + " | ".join(parts) + " |",
        "| --- " * (len(parts) + 3) + "|",
    ]
    for name in ("first steps", "pruned"):
        row = results[name]
        cells = " | ".join(str(row["parts_ms"][part]) for part in parts)
        lines.append(f"| {name} | {row['samples']:,} | {row['ms_per_step']} ({row['steps_per_s']}/s) | {cells} |")
    return [*lines, ""]


def hashgrid(results: dict[str, Any]) -> list[str]:
    entries = results["results"]
    sizes = ("15", "19")
    lines = [
        "## Hash grid",
        "",
        provenance("hashgrid", results["environment"]),
        "",
        "131,072 points, 16 levels x 2 features, forward and backward to the table; milliseconds, median (best).",
        "",
        "| implementation | 2^15 forward | 2^15 both | 2^19 forward | 2^19 both | gradient error |",
        "| --- | --- | --- | --- | --- | --- |",
    ]

    def rank(entry: dict[str, Any]) -> float:
        return entry["sizes"]["19"].get("forward_backward", {}).get("median_ms", float("inf"))

    for entry in sorted(entries.values(), key=rank):
        cells, error = [], ""
        for size in sizes:
            row = entry["sizes"][size]
            for key in ("forward", "forward_backward"):
                timing = row.get(key)
                cells.append(f"{timing['median_ms']} ({timing['best_ms']})" if timing else row.get("error", "-"))
            if "gradient_error" in row:
                error = f"{row['gradient_error']:.0e}"
        lines.append(f"| {entry['what']} | {' | '.join(cells)} | {error or 'own semantics'} |")
    return [*lines, ""]


def asset_rendering(results: dict[str, Any]) -> list[str]:
    lines = ["## Rendering meshes", "", provenance("asset_rendering", results["environment"]), ""]
    for mesh in results["meshes"]:
        lines += [
            f"**{mesh['name']}**, {mesh['faces']:,} faces, textures {mesh['textures']}. Views per second (best).",
            "",
            "| renderer | 64 px | 512 px | mask IoU with ours |",
            "| --- | --- | --- | --- |",
        ]
        for row in mesh["renderers"]:
            if "error" in row:
                lines.append(f"| {row['renderer']} | {row['error']} | | |")
                continue
            rates = [str(row[size]["views_per_second_best"]) if size in row else "-" for size in ("64px", "512px")]
            lines.append(f"| {row['renderer']} | {' | '.join(rates)} | {row['mask_iou']} |")
        lines.append("")
    return lines


def main() -> None:
    lines = [INTRO]
    for name, section in (
        ("fit_asset", fit_asset),
        ("fit_step", fit_step),
        ("hashgrid", hashgrid),
        ("asset_rendering", asset_rendering),
    ):
        results = load(name)
        if results is not None:
            lines += section(results)
    (ROOT / "docs" / "performance.md").write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
