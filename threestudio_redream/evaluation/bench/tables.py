"""The table of a suite as JSON, Markdown, CSV and LaTeX, from the raw rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from threestudio_redream.evaluation.bench.methods import METHODS
from threestudio_redream.evaluation.bench.statistics import differences, summaries
from threestudio_redream.evaluation.bench.suites import Column, Suite
from threestudio_redream.evaluation.bench.turns import TURN, turn_of
from threestudio_redream.runtime.files import atomic_write_bytes, atomic_write_text

__all__ = ["as_csv", "as_latex", "as_markdown", "differences_as_markdown", "table_rows", "write_results"]

_ARROWS = {"up": "↑", "down": "↓", "": ""}
_LATEX = {"up": r"$\uparrow$", "down": r"$\downarrow$", "": ""}
Summaries = Mapping[str, Mapping[str, Mapping[str, Any]]]


def write_results(
    folder: Path,
    suite: Suite,
    rows: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
    run_folder: Callable[[Mapping[str, Any]], Path],
) -> Summaries:
    """Write ``table.json``, ``.md``, ``.csv``, ``.tex``, ``differences.json``, ``.md``, ``about.json`` and ``runs/``.

    Args:
        rows: of all runs, failed ones too. about: where and with what the runs were made.
        run_folder: of a row; the turn kept there is put beside the raw row.

    Returns:
        What ``table.json`` holds.
    """
    table = summaries(rows)
    failed = {method: sum(r["method"] == method and r["status"] != "ok" for r in rows) for method in METHODS}
    failed = {method: count for method, count in failed.items() if count}
    _write_json(folder / "table.json", table)
    against = {base: differences(rows, base) for base in ("prolificdreamer", "redream")}
    _write_json(folder / "differences.json", against)
    _write_json(folder / "about.json", {"suite": suite.name, "failed": failed, **about})
    for row in rows:
        path = folder / "runs" / row["method"] / f"{row['name']}.json"
        _write_json(path, row)
        turn = turn_of(run_folder(row)) if row["status"] == "ok" else None
        if turn is not None:
            atomic_write_bytes(path.with_suffix(Path(TURN).suffix), turn)
    atomic_write_text(folder / "table.md", as_markdown(table, suite.columns, failed))
    pages = [differences_as_markdown(found, base, suite.columns) for base, found in against.items() if found]
    atomic_write_text(folder / "differences.md", "\n".join(pages))
    atomic_write_text(folder / "table.csv", as_csv(table))
    atomic_write_text(folder / "table.tex", as_latex(table, suite.columns, failed))
    return table


def as_markdown(table: Summaries, columns: Sequence[Column], failed: Mapping[str, int]) -> str:
    """One row per method; shares as ``hits / runs``, other figures with their interval."""
    return _markdown(*table_rows(table, columns, failed))


def table_rows(
    table: Summaries, columns: Sequence[Column], failed: Mapping[str, int]
) -> tuple[list[str], list[list[str]]]:
    """Titles and cells of :func:`as_markdown`."""
    rows = [
        [
            METHODS[method].title,
            _runs(method, metrics, failed),
            *(_shown(metrics.get(column.metric), column) for column in columns),
        ]
        for method, metrics in _ordered(table)
    ]
    return ["method", "runs", *_titles(columns)], rows


def differences_as_markdown(table: Summaries, base: str, columns: Sequence[Column]) -> str:
    """Every method minus ``base`` on their common runs, as :func:`differences` gives them; shares in percent points."""
    rows = [
        [
            METHODS[method].title,
            _runs(method, metrics, {}),
            *(_difference(metrics.get(column.metric), column) for column in columns),
        ]
        for method, metrics in _ordered(table)
    ]
    return _markdown([f"minus {METHODS[base].title}", "runs", *_titles(columns)], rows)


def as_latex(table: Summaries, columns: Sequence[Column], failed: Mapping[str, int]) -> str:
    """A ``tabular`` for the booktabs package; means alone, in bold the best of each column among the methods that have
    the most prompts: others do not compare."""
    best = {column.metric: _tex(_best(table, column)) for column in columns if column.better}
    most = max((found["prompts"] for metrics in table.values() for found in metrics.values()), default=0)
    head = " & ".join(["Method", "Runs", *(f"{_tex(column.title)} {_LATEX[column.better]}" for column in columns)])
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(columns) + 1)}}}", r"\toprule", rf"{head} \\", r"\midrule"]
    for method, metrics in _ordered(table):
        cells = [_tex(METHODS[method].title), _runs(method, metrics, failed)]
        for column in columns:
            text = _tex(_mean(metrics.get(column.metric), column))
            compares = metrics.get(column.metric, {}).get("prompts") == most
            cells.append(rf"\textbf{{{text}}}" if compares and text == best.get(column.metric) else text)
        lines.append(rf"{' & '.join(cells)} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def as_csv(table: Summaries) -> str:
    """All metrics, one line per method and metric."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(["method", "metric", "mean", "lo", "hi", "n"])
    for method, metrics in _ordered(table):
        for metric, found in metrics.items():
            numbers = ("" if found[key] is None else f"{found[key]:.6g}" for key in ("mean", "lo", "hi"))
            writer.writerow([method, metric, *numbers, found["n"]])
    return sink.getvalue()


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


def _titles(columns: Sequence[Column]) -> list[str]:
    return [f"{column.title} {_ARROWS[column.better]}".strip() for column in columns]


def _ordered(table: Summaries) -> Iterable[tuple[str, Mapping[str, Mapping[str, Any]]]]:
    return ((method, table[method]) for method in METHODS if method in table)


def _runs(method: str, metrics: Mapping[str, Mapping[str, Any]], failed: Mapping[str, int]) -> str:
    count = max((int(found["n"]) for found in metrics.values()), default=0)
    return f"{count}, {failed[method]} failed" if failed.get(method) else str(count)


def _mean(found: Mapping[str, Any] | None, column: Column) -> str:
    if found is None:
        return "-"
    return f"{100 * found['mean']:.0f} %" if column.share else f"{found['mean']:.{column.digits}f}"


def _shown(found: Mapping[str, Any] | None, column: Column) -> str:
    if found is None:
        return "-"
    if column.share:
        lo, hi = found.get("wilson", (found["lo"], found["hi"]))
        hits = f"{round(found['mean'] * found['n'])} / {found['n']}"
        return hits if lo is None else f"{hits} [{100 * lo:.0f}, {100 * hi:.0f} %]"
    mean = _mean(found, column)
    return mean if found["lo"] is None else f"{mean} [{found['lo']:.{column.digits}f}, {found['hi']:.{column.digits}f}]"


def _difference(found: Mapping[str, Any] | None, column: Column) -> str:
    if found is None:
        return "-"
    scale, digits = (100.0, 0) if column.share else (1.0, column.digits)
    lo, hi = found.get("newcombe", (found["lo"], found["hi"]))
    mean, *ends = (f"{scale * value:+.{digits}f}" for value in (found["mean"], lo, hi) if value is not None)
    return f"{mean} [{', '.join(ends)}]" if ends else mean


def _best(table: Summaries, column: Column) -> str:
    means = [metrics[column.metric] for _, metrics in _ordered(table) if column.metric in metrics]
    means = [found for found in means if found["prompts"] == max(each["prompts"] for each in means)]
    chosen = (max if column.better == "up" else min)(means, key=lambda found: found["mean"], default=None)
    return "" if chosen is None else _mean(chosen, column)


def _tex(text: str) -> str:
    for plain, escaped in (("%", r"\%"), ("&", r"\&"), ("_", r"\_"), ("#", r"\#")):
        text = text.replace(plain, escaped)
    return text


def _write_json(path: Path, payload: Any) -> None:
    atomic_write_text(path, json.dumps(payload, indent=1) + "\n")
