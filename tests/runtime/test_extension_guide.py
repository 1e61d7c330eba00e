"""The example of docs/extensions.md, and the example extension, as a reader would use them."""

import csv
import re
import shutil
from pathlib import Path

import pytest
from foreign import workspace

from threestudio_redream.runtime import find
from threestudio_redream.runtime.extensions import load_custom_modules
from threestudio_redream.runtime.launch import main

ROOT = Path(__file__).resolve().parents[2]
CLIP = ROOT / "examples" / "extensions" / "threestudio-clip"
PAGE = ROOT / "docs" / "extensions.md"

pytestmark = pytest.mark.skipif(not CLIP.is_dir(), reason="needs a whole clone, not a source package")


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.delenv("THREESTUDIO_DIR", raising=False)
    with workspace(tmp_path, monkeypatch) as folder:
        yield folder


def rows_of(trial):
    with open(next(Path("outputs", trial).rglob("metrics.csv"))) as file:
        return list(csv.DictReader(file))


def test_the_example_of_the_page_trains(host):
    blocks = dict(re.findall(r"(?ms)^```(python|yaml)\n(.*?)^```", PAGE.read_text(encoding="utf-8")))
    Path("custom/pebble.py").write_text(blocks["python"], encoding="utf-8")
    Path("pebble.yaml").write_text(blocks["yaml"], encoding="utf-8")
    assert main(["--config", "pebble.yaml", "--gpu", "0"]) == 0
    losses = [float(row["train/loss_tint"]) for row in rows_of("pebble") if row["train/loss_tint"]]
    assert losses[-1] < 0.8 * losses[0]
    assert len(list(Path("outputs").rglob("it20-*.png"))) == 4


def test_the_example_extension_imports_nothing_of_ours():
    for path in CLIP.rglob("*.py"):
        assert "threestudio_redream" not in path.read_text(encoding="utf-8")


def test_clip_guidance_knows_its_prompt(host):
    import torch

    shutil.copytree(CLIP, "custom/threestudio-clip")
    assert [outcome.error for outcome in load_custom_modules()] == [None]
    guidance = find("clip-similarity-guidance")(
        {"pretrained_model_name_or_path": str(ROOT / "threestudio_redream/mini/clip"), "strength": [0, 0.5, 1.0, 10]}
    )
    prompt = type("Prompt", (), {"prompt": "a red robot"})()
    picture = torch.rand(2, 48, 40, 3, requires_grad=True)
    guidance.do_update_step(0, 0)
    first = guidance(picture, prompt, elevation=None)
    guidance.do_update_step(0, 10)
    assert first["loss_clip"].item() < guidance(picture, prompt)["loss_clip"].item()
    first["loss_clip"].backward()
    assert picture.grad.abs().sum() > 0
    for _ in range(12):  # a picture itself can be made to look like the prompt
        said = guidance(picture, prompt)
        (grad,) = torch.autograd.grad(said["loss_clip"], picture)
        picture = (picture - 0.05 * grad.sign()).clamp(0, 1).detach().requires_grad_()
    assert said["similarity"] > first["similarity"] + 0.1
    with pytest.raises(ValueError, match="not at latents"):
        guidance(picture, prompt, rgb_as_latents=True)


def test_clip_guidance_beside_ours(host):
    shutil.copytree(CLIP, "custom/threestudio-clip")
    for name in ("threestudio_redream", "custom_configs"):
        Path(name).symlink_to(ROOT / name)
    small = [
        "use_timestamp=false",
        "trainer.max_steps=2",
        "trainer.log_every_n_steps=1",
        "data.width=16",
        "data.height=16",
        "data.n_test_views=1",
        "data.eval_width=16",
        "data.eval_height=16",
        "system.view_scores.every=0",
        "system.export_after_training=false",
        "system.guidances.0.weight=0.5",
    ]
    overlay = "custom/threestudio-clip/configs/with-redream.yaml"  # it lies over any system of ours with guidances
    assert main(["--config", "custom_configs/baselines/dreamfusion.yaml", "--config", overlay, *small]) == 0
    rows = [row for row in rows_of("redream-with-clip") if row.get("train/clip/similarity")]
    assert len(rows) == 2
