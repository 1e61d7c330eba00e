"""Write docs/performance.md, and the tables of docs/mini-study.md, from the raw results in benchmarks/results.

python benchmarks/tables.py
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from _common import ROOT

from threestudio_redream.runtime.files import atomic_write_text

RESULTS = ROOT / "benchmarks" / "results"

INTRO = """# Performance

Made by `python benchmarks/tables.py` from the files in `benchmarks/results`. Each section names the command,
machine, commit and the load of the machine when it was measured. Run one again: `python benchmarks/<name>.py`.
"""


def load(name: str) -> dict[str, Any] | None:
    """One result file, or None if that benchmark has not been run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def provenance(name: str, environment: dict[str, Any]) -> str:
    """Where a table comes from, in one paragraph."""
    load_average = environment.get("load_average") or ["?"]
    changes = " with uncommitted changes" if environment.get("uncommitted_changes") else ""
    return (
        f"`{environment['command']}`, commit `{environment['commit'][:10]}`{changes}, {environment.get('cpu', 'CPU')}, "
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


def export_colours(results: dict[str, Any]) -> list[str]:
    lines = [
        "## Painting the mesh of a distilled field",
        "",
        provenance("export_colours", results["environment"]),
        "",
        "The exported mesh beside the field's own pictures, 12 views that no texture was taken from, on white: PSNR of",
        "the whole picture and where both are opaque, in dB; seconds of the whole export. `surface` takes the field's",
        "colour at the surface; `views` (the default) projects 24 pictures of the field.",
        "",
        "| run | way | PSNR | where opaque | seconds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for run in results["runs"]:
        for way in ("surface", "views"):
            scores = run[way]
            lines.append(
                f"| {run['trial']} | {way} | {scores['psnr']} | {scores['psnr_where_opaque']} | {scores['seconds']} |"
            )
    return [*lines, ""]


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


def paragraph(text: str) -> list[str]:
    """Prose as wrapped lines, and an empty one."""
    return [*textwrap.wrap(" ".join(text.split()), 116, break_long_words=False, break_on_hyphens=False), ""]


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A Markdown table, and an empty line."""
    lines = [head, ["---"] * len(head), *rows]
    return [*(f"| {' | '.join(map(str, line))} |" for line in lines), ""]


def distillation_step(results: dict[str, Any]) -> list[str]:
    rows = results["rows"]
    parts = list(dict.fromkeys(part for row in rows.values() for part in row["parts_ms"]))
    return [
        "## One step of distillation",
        "",
        provenance("distillation_step", results["environment"]),
        "",
        *paragraph("""
            Milliseconds, means over the last quarter of the steps. The full-size model has the layout of Stable
            Diffusion 2.1 and random weights, in bfloat16, on this CPU; its autoencoder and UNet work at 512 pixels.
            The autoencoder's time within the delta term counts as the scores', too."""),
        *table(
            ["", *rows],
            [
                ["step, median", *(row["ms_per_step_median"] for row in rows.values())],
                ["step, mean", *(row["ms_per_step_mean"] for row in rows.values())],
                *([part, *(row["parts_ms"].get(part, "") for row in rows.values())] for part in parts),
                ["samples", *(f"{row['samples']:,}" for row in rows.values())],
                ["peak memory, GiB", *(row["peak_rss_gib"] for row in rows.values())],
            ],
        ),
    ]


def retrieval_scale(results: dict[str, Any]) -> list[str]:
    settings, two = results["settings"], results["two_stage"]
    rows = []
    for name, row in results["engines"].items():
        for place, found in enumerate(row["settings"]):
            once = [row["open_s"], row["rss_mib"], row["disk_mib"], row["build_s"]] if not place else [""] * 4
            figures = [found["effort"] or "", found["p50_ms"], found["p99_ms"], found["recall_at_10"]]
            rows.append(["" if place else name, *figures, *once])
    rows += [[name, reason, *[""] * 7] for name, reason in results["skipped"].items()]
    exact = results["engines"]["ours"]["settings"][0]["p50_ms"]
    return [
        "## Searching a large index",
        "",
        provenance("retrieval_scale", results["environment"]),
        "",
        *paragraph(f"""
            {settings["rows"]:,} vectors of {settings["dim"]} numbers on disk, {settings["queries"]} queries, one at a
            time, {settings["threads"]} threads. Vectors are synthetic with strongly overlapping clusters, so
            approximate recall is pessimistic. `ours` also scores its hits again in 64 bits and reads their records
            (name, caption, licence and so on); `ours-rows` gives row numbers as the libraries do. Most of the memory
            is the mapped file."""),
        *table(
            ["engine", "effort", "p50, ms", "p99, ms", "recall@10", "open, s", "memory, MiB", "disk, MiB", "build, s"],
            rows,
        ),
        *paragraph(f"""
            The second stage, {two["pool"]} assets by {two["views"]} views each, takes {two["views_p50_ms"]} ms more,
            however many rows there are (measured on {two["rows"]:,} rows, where a whole search takes
            {two["captions_p50_ms"] + two["views_p50_ms"]:.1f} ms); encoding the prompt comes on top."""),
        *paragraph(f"""
            **Eight million rows** were not measured. The exact search reads every vector once, at the speed of memory:
            ten times the rows are ten times {exact:.0f} ms and fifteen gigabytes if they fit into memory, and the speed
            of the disk otherwise. From a few million rows on, build with `--ann faiss-hnsw` while the vectors fit into
            memory: what it visits grows with the logarithm of the rows. Where they do not fit, `faiss-ivf` reads only
            the lists it visits."""),
    ]


def retrieval_real(results: dict[str, Any]) -> list[str]:
    found = results["results"]
    names = found["by_name"]
    return [
        "## An index of real meshes",
        "",
        provenance("retrieval_real", results["environment"]),
        "",
        *paragraph(f"""
            {found["files"]} files from {len(found["packages"])} public packages, nothing known of them but their names:
            {found["indexed"]} indexed in {found["build_s"]:.0f} s, {sum(found["rejected"].values())} left out."""),
        *table(["left out because", "files"], found["rejected"].items()),
        *paragraph(f"""
            Searched for by {names["asked"]} names that only one asset has, with encoder `{found["encoder"]}`, the asset
            is first by its caption in {names["caption_recall_at_1"]:.0%}, first by its views in
            {names["view_recall_at_1"]:.0%} and among the first ten in {names["view_recall_at_10"]:.0%}. The mini CLIP
            knows none of these objects or words; with a real CLIP it is the same command and another `--encoder`."""),
    ]


def mini_study() -> dict[str, str]:
    """Tables of the mini suite by the mark that they stand at."""
    from threestudio_redream.evaluation.bench.suites import open_suite
    from threestudio_redream.evaluation.bench.tables import as_markdown, differences_as_markdown

    folder, columns = RESULTS / "mini", open_suite("mini").columns
    about, table, differences = (
        json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("about", "table", "differences")
    )
    verdicts = [column for column in columns if column.share]
    figures = [column for column in columns if column.metric != "seconds"]  # runs were made side by side
    measures = [column for column in figures if not column.share]
    return {
        "mini_verdicts": as_markdown(table, verdicts, about["failed"]),
        "mini_measures": as_markdown(table, measures, about["failed"]),
        **{
            f"mini_minus_{base}": differences_as_markdown(differences[base], base, figures)
            for base in ("prolificdreamer", "redream")
        },
    }


def adapter_gate() -> str:
    """Table of the 2D probe: means over its prompts."""
    rows = json.loads((RESULTS / "adapter_gate.json").read_text("utf-8"))["rows"]
    gates = list(dict.fromkeys(row["adapter"] for row in rows))
    head = ["noised to t", "adapter acts", "fronts", "kind as asked", "finish as asked"]
    lines = []
    for start in dict.fromkeys(row["start"] for row in rows):
        for gate in gates:
            found = [row for row in rows if (row["start"], row["adapter"]) == (start, gate)]
            shares = [sum(row[key] for row in found) / len(found) for key in ("fronts", "kind", "finish")]
            lines.append([str(start), gate, *(f"{share:.0%}" for share in shares)])
    return "\n".join(table(head, lines))


def fill(path: Path, mark: str, text: str) -> None:
    """Replace what a page has between ``<!-- mark -->`` and ``<!-- /mark -->``."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    page = path.read_text("utf-8")
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise SystemExit(f"{path.name} needs the line {begin.strip()}, and {end} after it, once each.")
    before, rest = page.split(begin)
    atomic_write_text(path, before + begin + text + end + rest.split(end)[1])


def main() -> None:
    lines = [INTRO]
    for name, section in (
        ("fit_asset", fit_asset),
        ("export_colours", export_colours),
        ("fit_step", fit_step),
        ("hashgrid", hashgrid),
        ("asset_rendering", asset_rendering),
        ("distillation_step", distillation_step),
        ("retrieval_scale", retrieval_scale),
        ("retrieval_real", retrieval_real),
    ):
        results = load(name)
        if results is not None:
            lines += section(results)
    atomic_write_text(ROOT / "docs" / "performance.md", "\n".join(lines).rstrip() + "\n")
    if (RESULTS / "adapter_gate.json").is_file():
        fill(ROOT / "docs" / "mini-study.md", "adapter_gate", adapter_gate())
    if (RESULTS / "mini" / "table.json").is_file():
        for mark, text in mini_study().items():
            fill(ROOT / "docs" / "mini-study.md", mark, text)


if __name__ == "__main__":
    main()
