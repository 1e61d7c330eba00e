"""Sweeps of real, very short runs: finished ones stay, failed ones are rows, kills and executors change no number."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from threestudio_redream.cli import app
from threestudio_redream.errors import ConfigError
from threestudio_redream.evaluation.bench.harness import Harness
from threestudio_redream.evaluation.bench.inputs import weights_content
from threestudio_redream.evaluation.bench.methods import METHODS
from threestudio_redream.evaluation.bench.rows import read_result, read_row
from threestudio_redream.evaluation.bench.runs import flat, run_cell
from threestudio_redream.evaluation.bench.suites import Cell, open_suite
from threestudio_redream.evaluation.bench.sweep import adopt, collect, forget_failures, sweep
from threestudio_redream.evaluation.bench.tables import write_results
from threestudio_redream.evaluation.bench.turns import read_turn, view_of_turn
from threestudio_redream.executors import InlineExecutor, LocalExecutor, RayExecutor, SlurmExecutor

ROOT = Path(__file__).resolve().parents[2]
SHORT = (
    "trainer.max_steps=6",
    "trainer.val_check_interval=6",
    "checkpoint.every_n_train_steps=2",
    "data.n_test_views=13",
    "data.n_val_views=1",
    "data.eval_height=48",
    "data.eval_width=48",
    "system.geometry.pos_encoding_config.n_levels=3",
    "system.geometry.pos_encoding_config.log2_hashmap_size=10",
    "system.renderer.num_samples_per_ray=16",
)
CELLS = [Cell(method, "a blue robot", 0) for method in ("dreamfusion", "prolificdreamer")]


def harness(work, *extra, **options):
    return Harness("mini", work, ROOT, extra=(*SHORT, *extra), **options)


def numbers(rows):
    """Everything but the clock."""
    assert all(row["status"] == "ok" for row in rows), [row.get("reason") for row in rows]
    return [{name: value for name, value in row["metrics"].items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    made = harness(tmp_path_factory.mktemp("sweep"))
    return made, sweep(made, CELLS, InlineExecutor())


def test_rows_say_everything(finished):
    made, rows = finished
    assert [(row["method"], row["prompt"], row["seed"]) for row in rows] == [
        (cell.method, cell.prompt, cell.seed) for cell in CELLS
    ]
    for row in rows:
        wanted = {column.metric for column in open_suite("mini").columns}
        assert wanted <= set(row["metrics"])
        assert row["metrics"]["seconds"] > 1.0
        assert 0.0 <= row["metrics"]["asset/silhouette_iou"] <= 1.0
        assert row["asset"]
        assert row["commit"]
        assert row["renders"]["views"] == 13
        assert row["models"]["mini"]["judge"]["weights"]
        assert "system.prompt_processor.prompt=a blue robot" in row["overrides"]
        assert "/" not in "".join(row["overrides"]), "no paths of this machine"
    folder = made.folder(CELLS[0])
    assert json.loads((folder / "result.json").read_text()) == rows[0]
    assert not list((folder / "ckpts").glob("*")), "scored runs keep no checkpoints"
    assert numbers(rows)[0] != numbers(rows)[1]


def test_finished_runs_are_not_repeated(finished):
    made, rows = finished
    assert "clip_score[mini]" in (made.folder(CELLS[0]) / "report.html").read_text("utf-8"), (
        "its figures are on its page"
    )
    before = {cell: (made.folder(cell) / "launch.log").stat().st_mtime_ns for cell in CELLS}
    seen = []
    assert sweep(made, CELLS, InlineExecutor(), seen.append) == rows
    assert seen == []
    assert before == {cell: (made.folder(cell) / "launch.log").stat().st_mtime_ns for cell in CELLS}
    assert [row["name"] for row in collect(made, CELLS)] == ["a-blue-robot-0"] * 2


def test_results_of_other_settings_are_refused(finished):
    made, _ = finished
    other = Harness("mini", made.work, ROOT, extra=(*SHORT, "trainer.max_steps=7"))
    for call in (lambda: sweep(other, CELLS, InlineExecutor()), lambda: collect(other, CELLS)):
        with pytest.raises(ConfigError, match=r"other settings.*dreamfusion/a-blue-robot-0"):
            call()


def test_the_command_tells_the_same(finished, tmp_path):
    made, rows = finished
    words = ["bench", "--report", "--json", "-m", "dreamfusion,prolificdreamer", "--prompts", "1", "--seeds", "0"]
    words += ["--work", str(made.work), "--out", str(tmp_path), "--root", str(ROOT)]
    for extra in made.extra:
        words += ["--set", extra]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    table = json.loads(done.stdout)
    assert table["dreamfusion"]["clip_score[mini]"]["mean"] == rows[0]["metrics"]["clip_score[mini]"]
    assert json.loads((tmp_path / "table.json").read_text()) == table
    assert (tmp_path / "runs" / "dreamfusion" / "a-blue-robot-0.json").is_file()
    assert (made.work / "gallery.html").read_text("utf-8").count('class="run"') == 2
    planned = CliRunner().invoke(app, [*words, "--plan"])
    assert [row["status"] for row in json.loads(planned.stdout)] == ["ok", "ok"]
    nothing = CliRunner().invoke(app, ["bench", "--report", "--work", str(tmp_path / "w"), "--root", str(ROOT)])
    assert nothing.exit_code == 1
    assert "No run has finished" in nothing.stderr
    assert CliRunner().invoke(app, ["bench", "--seeds", "a,b"]).exit_code == 2


def test_finished_runs_of_another_machine_are_adopted(finished, tmp_path):
    made, rows = finished
    results = tmp_path / "results"
    write_results(results, open_suite("mini"), collect(made, CELLS), {}, made.folder_of)
    here = harness(tmp_path / "work")
    assert adopt(here, CELLS, results) == 2
    assert adopt(here, CELLS, results) == 0
    seen = []
    assert sweep(here, CELLS, InlineExecutor(), seen.append) == rows
    assert seen == []
    turns = [read_turn(one.folder(CELLS[0]) / "turn.webp") for one in (made, here)]
    assert turns[0] == turns[1]
    assert view_of_turn(turns[0], 6).std() > 0.01
    other = harness(tmp_path / "other", "trainer.max_steps=7")
    with pytest.raises(ConfigError, match="other settings"):
        adopt(other, CELLS, results)
    assert not (tmp_path / "other").exists()
    with pytest.raises(ConfigError, match="no folder of results"):
        adopt(here, CELLS, tmp_path)
    (results / "runs" / CELLS[0].method / f"{CELLS[0].name}.json").write_text("{")
    (results / "runs" / CELLS[1].method / f"{CELLS[1].name}.webp").write_bytes(b"no picture")
    assert adopt(harness(tmp_path / "damaged"), CELLS, results) == 1
    assert not list((tmp_path / "damaged").glob("*/*/turn.webp"))


def test_a_failed_run_is_a_row_and_stops_nothing(tmp_path):
    broken = harness(tmp_path, "system.loss.lambda_unknown=1", "system.guidance.half_precision=maybe")
    rows = sweep(broken, CELLS[:1], InlineExecutor())
    assert rows[0]["status"] == "failed"
    assert "status 2" in rows[0]["reason"]
    assert "maybe" in rows[0]["reason"]
    assert "metrics" not in rows[0]
    assert sweep(broken, CELLS[:1], InlineExecutor()) == rows
    assert forget_failures(broken, CELLS) == 1
    assert read_result(broken.folder(CELLS[0])) is None


def test_a_run_that_was_begun_with_other_settings_does_not_go_on_with_these(tmp_path):
    """Its checkpoint is of those, and the row would say these."""
    first, other = harness(tmp_path), harness(tmp_path, "trainer.max_steps=7")
    folder = first.folder(CELLS[0])
    (folder / "ckpts").mkdir(parents=True)
    begun = {"settings": first.settings(CELLS[0]), "inputs": first.inputs(CELLS[0])}
    (folder / "begun.json").write_text(json.dumps(begun))
    with pytest.raises(ConfigError, match=r"begun with other settings.*dreamfusion/a-blue-robot-0"):
        run_cell(other, CELLS[0])
    (folder / "begun.json").write_text(json.dumps({**begun, "inputs": {"weights": "others"}}))
    with pytest.raises(ConfigError, match="begun with other settings, assets or weights"):
        run_cell(first, CELLS[0])
    (folder / "begun.json").unlink()
    (folder / "ckpts" / "last.safetensors").write_bytes(b"of nobody knows what")
    with pytest.raises(ConfigError, match="begun with other settings"):
        run_cell(first, CELLS[0])
    assert not (folder / "result.json").exists()


def test_failures_of_other_settings_are_not_forgotten(tmp_path):
    broken = harness(tmp_path)
    folder = broken.folder(CELLS[0])
    folder.mkdir(parents=True)
    row = {"method": "dreamfusion", "prompt": "a blue robot", "seed": 0, "status": "failed", "settings": "other"}
    row["reason"] = "no views"
    (folder / "result.json").write_text(json.dumps(row))
    with pytest.raises(ConfigError, match="other settings"):
        forget_failures(broken, CELLS)
    assert read_result(folder) == row


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("status", [-signal.SIGTERM, 128 + signal.SIGTERM, 130])
def test_a_shutdown_is_no_failure(tmp_path, monkeypatch, status):
    def stopped(command, **options):
        return subprocess.CompletedProcess(command, status)

    made = harness(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("threestudio_redream.evaluation.bench.runs.subprocess.run", stopped)
        patch.setattr("threestudio_redream.evaluation.bench.runs.code_version", lambda: "x")
        with pytest.raises(KeyboardInterrupt):
            run_cell(made, CELLS[0])
    assert read_result(made.folder(CELLS[0])) is None


@pytest.mark.parametrize(
    "change",
    [
        {"method": "../../../elsewhere"},
        {"method": "redream"},
        {"seed": "</figcaption><script>"},
        {"seed": False},
        {"seed": 0.0},
        {"prompt": "a red robot"},
    ],
)
def test_a_row_is_of_the_cell_that_its_place_names(finished, tmp_path, change):
    """Rows of another machine decide no path, no markup, and not for whom they count."""
    made, _ = finished
    results = tmp_path / "results"
    write_results(results, open_suite("mini"), collect(made, CELLS), {}, made.folder_of)
    path = results / "runs" / CELLS[0].method / f"{CELLS[0].name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    here = harness(tmp_path / "work")
    with pytest.raises(ConfigError, match="not of the run that its place names"):
        adopt(here, CELLS, results)
    assert not (tmp_path / "work").exists()
    folder = here.folder(CELLS[0])
    folder.mkdir(parents=True)
    shutil.copy(path, folder / "result.json")
    with pytest.raises(ConfigError, match="not of the run that its place names"):
        collect(here, CELLS)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"status": "ok"}',
        '{"status": "ok", "metrics": [1]}',
        '{"status": "ok", "metrics": {"clip": "much"}}',
        '{"status": "ok", "metrics": {"clip": true}}',
        '{"status": "ok", "metrics": {"clip": 1' + "0" * 400 + "}}",
        '{"status": "ok", "metrics": {"\\ud800": 1.0}}',
        '{"status": "failed"}',
        '{"status": ["ok"], "metrics": {}}',
        "[]",
    ],
)
def test_a_damaged_row_is_none(tmp_path, text):
    (tmp_path / "row.json").write_text(text)
    assert read_row(tmp_path / "row.json") is None


def test_rows_of_other_weights_or_other_judges_are_refused(finished, tmp_path):
    made, rows = finished
    assert set(rows[0]["inputs"]) == {"weights"}
    assert set(made.inputs(Cell("redream", "a blue robot", 0))) == {"weights", "index"}
    here = harness(tmp_path)
    for cell, row in zip(CELLS, rows):
        here.folder(cell).mkdir(parents=True)
        (here.folder(cell) / "result.json").write_text(json.dumps(row))
    assert len(collect(here, CELLS)) == 2
    path = here.folder(CELLS[1]) / "result.json"
    path.write_text(json.dumps({**rows[1], "models": {"mini": {"clip": {"fingerprint": "another"}}}}))
    with pytest.raises(ConfigError, match=r"scored by different models.*dreamfusion.*prolificdreamer"):
        collect(here, CELLS)
    path.write_text(json.dumps({**rows[1], "inputs": {"weights": "others"}}))
    with pytest.raises(ConfigError, match=r"other weights.*prolificdreamer/a-blue-robot-0"):
        collect(here, CELLS)
    path.write_text(json.dumps({key: value for key, value in rows[1].items() if key != "inputs"}))
    assert len(collect(here, CELLS)) == 2, "rows of the first sweeps do not say"


def test_models_that_score_are_looked_for_before_anything_runs(tmp_path, monkeypatch):
    def absent(cfg):
        raise ConfigError("The model is not here", received=cfg.encoder, fix="Fetch it.")

    monkeypatch.setattr("threestudio_redream.evaluation.bench.sweep.Scorer", absent)
    with pytest.raises(ConfigError, match="not here"):
        sweep(harness(tmp_path), CELLS, InlineExecutor())
    assert not list(tmp_path.iterdir())


def test_the_index_is_the_one_that_runs_read(tmp_path):
    """A relative one is below --root, where runs start, wherever the sweep was started."""
    other = tmp_path / "clone"
    shutil.copytree(ROOT / "custom_configs", other / "custom_configs")
    shutil.copytree(ROOT / "retrieval_index" / "mini", other / "retrieval_index" / "mini")
    found = {root: Harness("mini", tmp_path / "work", root).retrieval().index for root in (ROOT, other)}
    assert found == {root: str(root / "retrieval_index" / "mini") for root in (ROOT, other)}


def test_controls_are_found_outside_a_clone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["bench", "-m", "random-asset", "--prompts", "1", "--plan", "--json"])
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)) == 3


def test_weights_count_by_their_content(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(content)
    one, same, other = (weights_content(str(tmp_path / name)) for name in "abc")
    assert one == same != other
    assert len(weights_content("mini")) == 64
    assert weights_content("sd21-base") == ""


BENCH = ["bench", "-m", "dreamfusion,prolificdreamer", "--prompts", "1", "--seeds", "0", "--root", str(ROOT)]


def test_published_results_are_replaced_by_what_covers_them_alone(finished, tmp_path, monkeypatch):
    made, _ = finished
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "benchmarks" / "results" / "mini"
    write_results(results, open_suite("mini"), collect(made, CELLS), {}, made.folder_of)
    before = (results / "table.json").read_bytes()
    settings = [word for extra in made.extra for word in ("--set", extra)]
    work = tmp_path / "work"
    shutil.copytree(made.work, work)
    words = [*BENCH, "--report", "--work", str(work), *settings]
    fewer = CliRunner().invoke(app, [word.replace(",prolificdreamer", "") for word in words])
    assert fewer.exit_code == 0, fewer.output
    assert "holds 1 finished runs that are not among these" in fewer.stderr
    assert set(json.loads((work / "results" / "table.json").read_text())) == {"dreamfusion"}
    assert (results / "table.json").read_bytes() == before
    row = work / CELLS[1].method / CELLS[1].name / "result.json"
    whole = row.read_text()
    for left in (None, json.dumps({**json.loads(whole), "status": "failed", "reason": "no views"})):
        row.unlink(missing_ok=True)
        if left is not None:
            row.write_text(left)
        part = CliRunner().invoke(app, words)
        assert "holds 1 finished runs that are not among these" in part.stderr
        assert (results / "table.json").read_bytes() == before
    row.write_text(whole)
    named = CliRunner().invoke(app, [word.replace(",prolificdreamer", "") for word in words] + ["--out", str(results)])
    assert "1 finished runs in benchmarks/results/mini are not among these" in named.stderr
    (results / "table.json").unlink()
    whole = CliRunner().invoke(app, words)
    assert (whole.exit_code, whole.stderr) == (0, "")
    assert set(json.loads((results / "table.json").read_text())) == {"dreamfusion", "prolificdreamer"}


def test_a_plan_writes_nothing_and_knows_whose_rows_are_there(finished, tmp_path):
    made, _ = finished
    results, work = tmp_path / "results", tmp_path / "work"
    write_results(results, open_suite("mini"), collect(made, CELLS), {}, made.folder_of)
    settings = [word for extra in made.extra for word in ("--set", extra)]
    words = [*BENCH, "--plan", "--json", "--work"]

    def planned(*more):
        done = CliRunner().invoke(app, [*words, *map(str, more)])
        assert done.exit_code == 0, done.output
        return [row["status"] for row in json.loads(done.stdout)]

    assert planned(work, *settings) == ["to do", "to do"]
    assert planned(work, *settings, "--adopt", results) == ["to adopt", "to adopt"]
    assert not work.exists()
    assert planned(made.work, *settings) == ["ok", "ok"]
    assert planned(made.work, *settings, "--set", "trainer.max_steps=7") == ["other settings"] * 2


def test_what_the_index_cannot_give_is_left_out_by_name(tmp_path):
    """The second best asset of an index that has one."""
    assets, index = tmp_path / "assets", tmp_path / "one.index"
    assets.mkdir()
    shutil.copy(next((ROOT / "retrieval_index" / "mini" / "assets").glob("robot-*.glb")), assets)
    built = CliRunner().invoke(app, ["index", "build", str(assets), "--out", str(index), "--copy-assets"])
    assert built.exit_code == 0, built.output
    given, cell = harness(tmp_path / "work", index=str(index)), Cell("second-asset", "a blue robot", 0)
    assert given.applicable(Cell("redream", "a blue robot", 0))
    assert not given.applicable(cell)
    with pytest.raises(ConfigError, match=r"no asset that second-asset could be given.*a blue robot"):
        sweep(given, [cell], InlineExecutor())
    words = ["-m", "redream,second-asset", "--prompts", "1", "--seeds", "0", "--index", str(index), "--plan", "--json"]
    done = CliRunner().invoke(app, ["bench", *words, "--work", str(tmp_path / "work"), "--root", str(ROOT)])
    assert [row["method"] for row in json.loads(done.stdout)] == ["redream"]
    assert "left out: second-asset, " in done.stderr


def test_missing_views_are_a_failed_row(finished, tmp_path):
    """A run whose views are gone is not scored by what is left of them."""
    made, _ = finished
    folder = tmp_path / CELLS[0].method
    folder.mkdir()
    copied = harness(tmp_path)
    subprocess.run(["cp", "-r", str(made.folder(CELLS[0])), str(folder)], check=True)
    (copied.folder(CELLS[0]) / "result.json").unlink()
    from threestudio_redream.evaluation.bench import runs

    next(copied.folder(CELLS[0]).glob("save/it6-test/5.png")).unlink()
    row = runs._scored(copied, CELLS[0])
    assert row["status"] == "failed"
    assert row["reason"].startswith("missing: ")


def test_a_missing_configuration_is_named_before_anything_runs(tmp_path):
    elsewhere = Harness("mini", tmp_path / "work", tmp_path)
    with pytest.raises(ConfigError, match=r"dreamfusion\.yaml.*clone of the repository"):
        sweep(elsewhere, CELLS, InlineExecutor())
    assert not (tmp_path / "work").exists()


def test_a_killed_sweep_changes_no_number(finished, tmp_path):
    _, rows = finished
    made = harness(tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from test_bench_runs import *\n"
        "sweep(harness(Path(sys.argv[1])), CELLS, InlineExecutor())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 240
    while not list((made.folder(CELLS[1]) / "ckpts").glob("*step=2*")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)  # its launch lives on, and holds the lock of its folder
    process.wait()
    first = read_result(made.folder(CELLS[0]))
    assert read_result(made.folder(CELLS[1])) is None
    again = sweep(made, CELLS, InlineExecutor())
    assert again[0] == first
    assert numbers(again) == numbers(rows)


@pytest.mark.parametrize("kind", ["local", "slurm", "ray"])
def test_executors_give_the_same_numbers(kind, finished, tmp_path):
    if kind == "local":
        executor = LocalExecutor(2)
    elif kind == "slurm":
        pytest.importorskip("submitit")
        executor = SlurmExecutor(2, tmp_path / "logs", cluster="local", timeout_min=10)
    else:
        pytest.importorskip("ray", minversion="2.0")  # a folder of that name is not it
        executor = RayExecutor(2)
    rows = sweep(harness(tmp_path / "work"), CELLS, executor)
    assert numbers(rows) == numbers(finished[1])


def test_assets_of_controls(tmp_path):
    made = harness(tmp_path)
    prompts = open_suite("mini").prompts
    found = {name: made.asset(Cell(name, "a red cat", 1)).record for name in METHODS}
    assert found["redream"].asset_id == found["dreamfusion"].asset_id == found["no-delta"].asset_id
    assert "cat" in found["redream"].name
    assert "cat" in found["second-asset"].name
    assert found["second-asset"].asset_id != found["redream"].asset_id
    assert "elephant" in found["wrong-class-asset"].name
    assert found["random-asset"].asset_id == found["random-asset-trusted"].asset_id
    drawn = {made.asset(Cell("random-asset", prompt, seed)).record.asset_id for prompt in prompts for seed in range(3)}
    assert len(drawn) > 25
    words = made.overrides(Cell("wrong-class-asset-trusted", "a red cat", 1))
    assert f"system.retrieval.asset_ids=[{found['wrong-class-asset'].asset_id}]" in words
    assert "system.retrieval.gate=false" in words
    assert not any("asset_ids" in word for word in made.overrides(Cell("no-delta", "a red cat", 1)))


def test_a_suite_without_assets_of_its_own_asks_for_an_index(tmp_path):
    cells = open_suite("paper").cells(("dreamfusion", "redream"), prompts=1)
    with pytest.raises(ConfigError, match=r"paper ships without assets.*--index"):
        sweep(Harness("paper", tmp_path, ROOT), cells, InlineExecutor())
    mini = ROOT / "retrieval_index" / "mini"
    given = Harness("paper", tmp_path, ROOT, index=str(mini))
    assert given.retrieval().index == str(mini)
    assert f"system.retrieval.index={mini}" in given.command(cells[1])
    assert not any("retrieval" in word for word in given.command(cells[0])), "SDS knows no such key"


def test_an_index_counts_by_its_content(tmp_path):
    cell = Cell("redream", "a red cat", 0)
    elsewhere = tmp_path / "copy"
    shutil.copytree(ROOT / "retrieval_index" / "mini", elsewhere)
    made = [Harness("mini", tmp_path, ROOT, index=str(folder)) for folder in (ROOT / "retrieval_index/mini", elsewhere)]
    assert made[0].settings(cell) == made[1].settings(cell) != Harness("mini", tmp_path, ROOT).settings(cell)
    assert made[1].asset(cell).record.asset_id == Harness("mini", tmp_path, ROOT).asset(cell).record.asset_id


def test_flat_metrics():
    nested = {"a": 1, "b": {"c": True, "d": None, "e": {"f": 0.5}}, "text": "no"}
    assert flat(nested) == {"a": 1.0, "b/c": 1.0, "b/e/f": 0.5}


def test_broken_results_are_no_results(tmp_path):
    for text in ("", "[]", "{", '{"status": "running"}'):
        (tmp_path / "result.json").write_text(text)
        assert read_result(tmp_path) is None
    assert run_cell.__module__.endswith("bench.runs")
