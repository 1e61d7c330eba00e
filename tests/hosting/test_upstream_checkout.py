"""Upstream's own launch.py runs our configurations: train, validate, test, resume, export.

``THREESTUDIO_DIR`` names a checkout of threestudio, ``THREESTUDIO_PYTHON`` the interpreter of the environment that
runs it (by default this one). That environment must be able to run ``launch.py`` as it is; this package is put before
its path, and the checkout stays as it is.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from threestudio_redream.assets import load_asset
from threestudio_redream.hosting import shim

ROOT = Path(__file__).resolve().parents[2]
CHECKOUT = os.environ.get("THREESTUDIO_DIR", "")
PYTHON = os.environ.get("THREESTUDIO_PYTHON", sys.executable)
CONFIGS = ROOT / "custom_configs"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHECKOUT, reason="THREESTUDIO_DIR names no checkout of threestudio"),
]

#: Seconds instead of minutes.
SMALL = [
    "data.width=32",
    "data.height=32",
    "data.eval_width=48",
    "data.eval_height=48",
    "data.n_val_views=2",
    "data.n_test_views=4",
    "system.adaptation.steps=4",
    "system.references.views_per_asset=8",
    "system.exporter.resolution=64",
    "system.exporter.texture_size=256",
    "system.exporter.view_size=32",
    "trainer.log_every_n_steps=1",
    "use_timestamp=false",
]
#: An extension of its own that looks on: mixed into the system by upstream's "main:sub" names.
WATCH = """
import threestudio

@threestudio.register("watch")
class Watch:
    def on_train_batch_start(self, batch, batch_idx, unused=0):
        threestudio.info(f"WATCH {self.true_global_step} randomized={self.renderer.randomized}")
        return super().on_train_batch_start(batch, batch_idx, unused)
"""


def workspace(folder: Path) -> Path:
    """A folder to launch from: the checkout's launcher and package by links, an empty custom/."""
    for name in ("launch.py", "threestudio", "load"):
        (folder / name).symlink_to(Path(CHECKOUT).resolve() / name)
    (folder / "custom").mkdir()
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)  # upstream snapshots its code with git
    return folder


def launch(folder: Path, *words: str, path: tuple[Path, ...] = (ROOT,), status: int = 0) -> str:
    before = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    done = subprocess.run(
        [PYTHON, "launch.py", "--gpu", "0", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*before, *map(str, path)]), "WANDB_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    text = f"{done.stdout}\n{done.stderr}".replace("\r", "\n")
    assert (done.returncode != 0) == bool(status), text[-6000:]
    return text


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A workspace in which redream.yaml was trained for 20 steps, and the log."""
    folder = workspace(tmp_path_factory.mktemp("threestudio"))
    shim.install(folder)
    (folder / "custom" / "watch.py").write_text(WATCH, encoding="utf-8")
    steps = ["trainer.max_steps=20", "trainer.val_check_interval=10", "checkpoint.every_n_train_steps=10"]
    config = str(CONFIGS / "redream.yaml")
    log = launch(folder, "--config", config, "--train", *SMALL, *steps, "system_type=redream-system:watch")
    return folder, log


TRIAL = Path("outputs/redream/a_blue_robot")


def losses(trial: Path) -> list[float]:
    rows: list[float] = []
    for file in sorted((trial / "csv_logs").glob("version_*/metrics.csv")):
        with open(file) as lines:
            rows += [float(row["train/loss_vsd"]) for row in csv.DictReader(lines) if row.get("train/loss_vsd")]
    return rows


def test_it_trains_validates_tests_and_exports(trained: tuple[Path, str]) -> None:
    folder, log = trained
    trial = folder / TRIAL
    assert "IMPORT FAILED" not in log
    assert "Retrieved" in log
    assert "`max_steps=20` reached" in log
    assert len(losses(trial)) == 20
    assert all(value == value and value < 1e6 for value in losses(trial))
    assert {file.name for file in (trial / "ckpts").iterdir()} >= {"last.ckpt"}
    for name in ("it10-val.png", "it20-val.png", "it20-test.mp4", "it20-test/3.png", "retrieved/ATTRIBUTION.md"):
        assert (trial / "save" / name).is_file(), name
    assert len(load_asset(trial / "save" / "it20-export" / "model.glb").faces) > 100
    page = (trial / "report.html").read_text("utf-8")
    assert "a blue robot" in page


def test_rays_stay_jittered_after_a_validation(trained: tuple[Path, str]) -> None:
    seen = re.findall(r"WATCH (\d+) randomized=(\w+)", trained[1])
    assert seen == [(str(step), "True") for step in range(20)]


def test_resume_test_validate_export(trained: tuple[Path, str]) -> None:
    folder, _ = trained
    parsed, last = str(TRIAL / "configs" / "parsed.yaml"), f"resume={TRIAL / 'ckpts' / 'last.ckpt'}"
    log = launch(folder, "--config", parsed, "--train", last, "trainer.max_steps=30")
    assert "Adaptation: taken from" in log
    assert re.findall(r"WATCH (\d+) ", log) == [str(step) for step in range(20, 30)]
    save = folder / TRIAL / "save"
    assert (save / "it30-test.mp4").is_file()
    shutil.rmtree(save / "it30-export")
    (save / "it30-test.mp4").unlink()
    log = launch(folder, "--config", parsed, "--test", last)
    assert (save / "it30-test.mp4").is_file()
    assert not (save / "it30-export").exists()
    launch(folder, "--config", parsed, "--validate", last)
    assert (save / "it30-val.png").is_file()
    launch(folder, "--config", parsed, "--export", last)
    assert len(load_asset(save / "it30-export" / "model.glb").faces) > 100


def test_a_clone_in_custom_works_too(trained: tuple[Path, str], tmp_path: Path) -> None:
    folder = workspace(tmp_path)
    shutil.copy(trained[0] / "custom" / "watch.py", folder / "custom")
    clone = folder / "custom" / "threestudio-redream"
    clone.mkdir()
    for part in ("threestudio_redream", "retrieval_index", "custom_configs"):
        (clone / part).symlink_to(ROOT / part)
    shutil.copy(ROOT / "__init__.py", clone)
    parsed = trained[0] / TRIAL / "configs" / "parsed.yaml"
    last = next((trained[0] / TRIAL / "ckpts").glob("*step=20.ckpt"))
    log = launch(folder, "--config", str(parsed), "--export", f"resume={last}", "system.exporter.fmt=obj-mtl", path=())
    assert "IMPORT FAILED" not in log
    assert (folder / TRIAL / "save" / "it20-export" / "model.obj").is_file()


FIT = ["trainer.val_check_interval=2", "data.n_test_views=3", "data.n_val_views=2"]
PARTICLES = ["system.particles=2", "system.geometry_type=retrieved-asset-initializer", "system.geometry.fit_steps=2"]
#: The full-size configuration, with the mini model and few pixels.
SD21 = [
    *SMALL[4:],
    "data.width=[16,32]",
    "data.height=[16,32]",
    "data.eval_width=32",
    "data.eval_height=32",
    "system.retrieval.index=retrieval_index/mini",
    "system.prompt_processor.prompt=a blue robot",
    "system.guidance.pretrained_model_name_or_path=mini",
    "system.guidance.weights_dtype=float32",
    "system.references.resolution=64",
    "system.renderer.num_samples_per_ray=48",
    "system.geometry.pos_encoding_config.log2_hashmap_size=12",
]


@pytest.mark.parametrize(
    ("config", "words", "made"),
    [
        ("fit-asset.yaml", FIT, "metrics.json"),
        ("baselines/dreamfusion.yaml", SMALL[:6], "it3-test.mp4"),
        ("redream-sd21.yaml", SD21, "it3-export/model.glb"),
        ("redream.yaml", [*SMALL, *PARTICLES], "it3-export/p1/model.glb"),
    ],
)
def test_other_configurations(tmp_path: Path, config: str, words: list[str], made: str) -> None:
    folder = workspace(tmp_path)
    shim.install(folder)
    words = ["trainer.max_steps=3", *words, "tag=run", "name=runs", "use_timestamp=false"]
    smaller = [f"system.exporter.{key}" for key in ("resolution=48", "texture_size=64", "view_size=32")]
    launch(folder, "--config", str(CONFIGS / config), "--train", *words, *smaller)
    assert (folder / "outputs" / "runs" / "run" / "save" / made).is_file()


def test_a_batch_of_three_is_refused_by_name(tmp_path: Path) -> None:
    folder = workspace(tmp_path)
    shim.install(folder)
    words = [*SMALL, "data.batch_size=3", "system.retrieval.enabled=false"]
    log = launch(folder, "--config", str(CONFIGS / "redream.yaml"), "--train", *words, status=1)
    assert "wrong for batches of 3 (got 3). Set data.batch_size" in log


def test_the_gate_refuses_an_old_package_and_the_reason_comes_again(tmp_path: Path) -> None:
    folder = workspace(tmp_path)
    shim.install(folder)
    old = tmp_path / "site" / "av-0.1.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: av\nVersion: 0.1\n", encoding="utf-8")
    words = ["--config", str(CONFIGS / "redream.yaml"), "--train"]
    log = launch(folder, *words, path=(old.parent, ROOT), status=1)
    head, _, tail = log.partition("Import times")
    assert "(IMPORT FAILED)" in tail
    assert "av 0.1 is older than 12" in head
    assert re.search(r"'redream-system' is not available\. .*av 0\.1 is older than 12", tail)
