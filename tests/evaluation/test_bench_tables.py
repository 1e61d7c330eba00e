"""Suites, methods and the tables they end in."""

import csv
import io
import json

import pytest

from threestudio_redream.errors import ConfigError
from threestudio_redream.evaluation.bench.methods import MAIN, METHODS, chosen_methods
from threestudio_redream.evaluation.bench.suites import SUITES, Cell, Column, open_suite
from threestudio_redream.evaluation.bench.tables import (
    as_csv,
    as_latex,
    as_markdown,
    differences_as_markdown,
    write_results,
)


def test_groups_of_methods():
    assert chosen_methods(["main"]) == MAIN
    assert chosen_methods(["all"]) == tuple(METHODS)
    assert set(chosen_methods(["ablations"])) == set(METHODS) - set(MAIN)
    assert chosen_methods(["redream", "main", "no-delta"]) == (*MAIN, "no-delta")
    with pytest.raises(ConfigError, match=r"Unknown methods.*'magic3d'"):
        chosen_methods(["redream", "magic3d"])
    with pytest.raises(ConfigError, match="No method"):
        chosen_methods([])


def test_controls_are_there():
    assert {METHODS[name].asset for name in METHODS} == {"best", "second", "random", "wrong"}
    for name in ("random-asset", "wrong-class-asset"):
        assert not METHODS[name].overrides, "the gate acts"
        assert METHODS[f"{name}-trusted"].overrides == ("system.retrieval.gate=false",)


@pytest.mark.parametrize("name", list(SUITES))
def test_suites(name):
    suite = open_suite(name)
    assert len(set(suite.prompts)) == len(suite.prompts) == {"mini": 12, "paper": 50}[name]
    cells = suite.cells(("redream", "no-delta"))
    assert cells == list(dict.fromkeys(cells))
    count = {
        method: len({cell.prompt for cell in cells if cell.method == method}) for method in ("redream", "no-delta")
    }
    assert count == {"redream": len(suite.prompts), "no-delta": suite.ablation_prompts}
    assert suite.ablation_prompts >= 6
    assert len(suite.cells(MAIN, prompts=2, seeds=(5,))) == 6
    assert {cell.seed for cell in suite.cells(MAIN, prompts=2, seeds=(5,))} == {5}
    assert len({cell.name for cell in suite.cells(MAIN[:1])}) == len(suite.prompts) * len(suite.seeds)
    for prompts in (0, 51):
        with pytest.raises(ConfigError, match="prompts"):
            suite.cells(MAIN, prompts=prompts)
    for prompt in suite.prompts:
        assert suite.other_prompt(prompt) != prompt
        assert suite.other_prompt(prompt).split()[-1] != prompt.split()[-1]
    with pytest.raises(ConfigError, match="Unknown suite"):
        open_suite("huge")


def test_half_of_the_papers_prompts_have_a_face():
    from importlib import resources

    file = resources.files("threestudio_redream.evaluation.bench").joinpath("prompts").joinpath("paper.json")
    rows = json.loads(file.read_text("utf-8"))["prompts"]
    assert sum(row["janus_prone"] for row in rows) >= 25
    assert all(row["prompt"][0].islower() and not row["prompt"].endswith(".") for row in rows)


def test_names_of_cells_are_folder_names():
    cell = Cell("redream", "a cat, wearing a Virtual-Reality headset / ../../etc", 3)
    assert cell.name == "a-cat-wearing-a-virtual-reality-headset-etc-3"


COLUMNS = (
    Column("judge/janus", "Janus", "down", share=True),
    Column("clip", "CLIP_50% & more", "up"),
    Column("iou", "IoU", digits=1),
)


def rows():
    values = {"prolificdreamer": (1.0, 0.2), "redream": (0.0, 0.3)}
    return [
        {
            "name": f"p{i}-0",
            "method": method,
            "prompt": f"p{i}",
            "seed": 0,
            "status": "ok",
            "metrics": {"judge/janus": janus if i else 0.0, "clip": clip + 0.01 * i} | ({"iou": 0.5} if i else {}),
        }
        for method, (janus, clip) in values.items()
        for i in range(4)
    ] + [{"name": "p9-0", "method": "redream", "prompt": "p9", "seed": 0, "status": "failed", "reason": "no views"}]


def test_results_are_written(tmp_path):
    suite = open_suite("mini")
    table = write_results(tmp_path, suite, rows(), {"threads": 1}, lambda row: tmp_path / "none")
    assert json.loads((tmp_path / "table.json").read_text()) == table
    for metrics in table.values():
        for found in metrics.values():
            assert {"mean", "lo", "hi", "n"} <= set(found)
            assert found["lo"] <= found["mean"] <= found["hi"]
    differences = json.loads((tmp_path / "differences.json").read_text())
    assert differences["prolificdreamer"]["redream"]["clip"]["mean"] == pytest.approx(0.1)
    assert differences["redream"]["prolificdreamer"]["clip"]["mean"] == pytest.approx(-0.1)
    about = json.loads((tmp_path / "about.json").read_text())
    assert (about["suite"], about["failed"], about["threads"]) == ("mini", {"redream": 1}, 1)
    raw = json.loads((tmp_path / "runs" / "redream" / "p9-0.json").read_text())
    assert raw["reason"] == "no views"
    assert len(list((tmp_path / "runs").glob("*/*.json"))) == 9
    assert "1 failed" in (tmp_path / "table.md").read_text()


def table_of(tmp_path):
    return write_results(tmp_path, open_suite("mini"), rows(), {}, lambda row: tmp_path / "none")


def test_markdown(tmp_path):
    lines = as_markdown(table_of(tmp_path), COLUMNS, {"redream": 1}).splitlines()
    assert lines[0] == "| method | runs | Janus ↓ | CLIP_50% & more ↑ | IoU |"
    assert [line.count("|") for line in lines] == [6] * 4
    assert lines[2].startswith("| ProlificDreamer (VSD) | 4 | 3 / 4 [30, 95 %] | 0.215 [")
    assert lines[3].startswith("| ReDream | 4, 1 failed | 0 / 4 [0, 49 %] | 0.315 [")
    assert lines[3].endswith("| 0.5 [0.5, 0.5] |")


def test_differences(tmp_path):
    table_of(tmp_path)
    found = json.loads((tmp_path / "differences.json").read_text())
    lines = differences_as_markdown(found["prolificdreamer"], "prolificdreamer", COLUMNS).splitlines()
    assert lines[0] == "| minus ProlificDreamer (VSD) | runs | Janus ↓ | CLIP_50% & more ↑ | IoU |"
    assert len(lines) == 3
    name, runs, janus, clip, iou = (cell.strip() for cell in lines[2].strip("|").split("|"))
    assert (name, runs) == ("ReDream", "4")
    assert janus.startswith("-75 [-")
    assert clip == "+0.100 [+0.100, +0.100]"
    assert iou == "+0.0 [+0.0, +0.0]"
    pages = (tmp_path / "differences.md").read_text()
    assert pages.startswith("| minus ProlificDreamer (VSD) | runs | Janus ↓ |")
    assert "| minus ReDream | runs | Janus ↓ |" in pages


def test_latex(tmp_path):
    lines = as_latex(table_of(tmp_path), COLUMNS, {}).splitlines()
    assert lines[0] == r"\begin{tabular}{lrrrr}"
    assert lines[2] == r"Method & Runs & Janus $\downarrow$ & CLIP\_50\% \& more $\uparrow$ & IoU  \\"
    assert lines[4] == r"ProlificDreamer (VSD) & 4 & 75 \% & 0.215 & 0.5 \\"
    assert lines[5] == r"ReDream & 4 & \textbf{0 \%} & \textbf{0.315} & 0.5 \\"
    assert lines[-1] == r"\end{tabular}"


def test_the_best_in_bold_is_of_the_most_prompts(tmp_path):
    """A mean over fewer prompts does not compare."""
    fewer = [{**row, "method": "no-delta", "metrics": {"clip": 9.0}} for row in rows()[:2]]
    found = write_results(tmp_path, open_suite("mini"), [*rows(), *fewer], {}, lambda row: tmp_path / "none")
    lines = as_latex(found, COLUMNS, {}).splitlines()
    assert next(line for line in lines if line.startswith("ReDream")).count("textbf") == 2
    assert "textbf" not in next(line for line in lines if line.startswith("without the delta"))


def test_one_prompt_is_shown_without_an_interval(tmp_path):
    one = [row for row in rows() if row["prompt"] == "p1"]
    found = write_results(tmp_path, open_suite("mini"), one, {}, lambda row: tmp_path / "none")
    assert as_markdown(found, COLUMNS, {}).splitlines()[3] == "| ReDream | 1 | 0 / 1 [0, 79 %] | 0.310 | 0.5 |"
    pages = differences_as_markdown(
        json.loads((tmp_path / "differences.json").read_text())["prolificdreamer"], "prolificdreamer", COLUMNS
    )
    assert pages.splitlines()[2] == "| ReDream | 1 | -100 [-100, +12] | +0.100 | +0.0 |"
    line = next(line for line in as_csv(found).splitlines() if line.startswith("redream,clip,"))
    assert line == "redream,clip,0.31,,,1"


def test_csv(tmp_path):
    found = list(csv.DictReader(io.StringIO(as_csv(table_of(tmp_path)))))
    assert len(found) == 6
    best = next(line for line in found if (line["method"], line["metric"]) == ("redream", "clip"))
    assert (best["mean"], best["n"]) == ("0.315", "4")
