"""Each tool of the mini lab runs for a few steps on a few renders, and the libraries load what it leaves."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from threestudio_redream.mini.judge import Judge
from tools.mini import render_library, train_autoencoder, train_clip, train_diffusion, train_judge
from tools.mini.descriptors import COLORS, DESCRIPTORS
from tools.mini.kinds import load_kinds
from tools.mini.pictures import SIDE, STYLE_COUNT, PictureSet, develop, random_backgrounds
from tools.mini.seeds import held_out_pairs
from tools.mini.tokenizer import CONTEXT
from tools.mini.training import Plan

CHOSEN = ["cat", "mug"]
LAYOUT = (1, 1, 1)  # instances, web cameras, even cameras
PLAN = Plan(steps=3, lr=1e-3, warmup=1, seed=3, log_every=1, save_every=2)


class Inline:
    """A process pool that works in this process."""

    started = 0

    def __init__(self, *_: object, **__: object) -> None:
        Inline.started += 1

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Any, *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(work(*arguments))
        return future


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def renders(folder: Path) -> Path:
    """Two pictures of every finish of two kinds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render_library, "ProcessPoolExecutor", Inline)
        patch.setattr(render_library, "SUPERSAMPLE", 1)
        render_library.render_set(folder / "renders", "train", LAYOUT, kinds=CHOSEN)
    return folder / "renders"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches."""
    for tool in (train_autoencoder, train_clip, train_diffusion, train_judge):
        monkeypatch.setattr(tool, "BATCH", 4)


def log_steps(path: Path) -> list[str]:
    return [line.partition(",")[0] for line in (path / "log.csv").read_text("utf-8").splitlines()]


def test_the_renders_show_what_their_labels_say(renders: Path) -> None:
    pictures = PictureSet.open(renders)
    pairs = [(kind, descriptor) for kind in CHOSEN for descriptor in DESCRIPTORS]
    assert pictures.rgba.shape == (2 * len(pairs), SIDE, SIDE, 4)
    named = [(pictures.kinds[a], pictures.descriptors[b]) for a, b in zip(pictures.kind, pictures.descriptor)]
    assert named == [pair for pair in pairs for _ in range(2)]
    assert pictures.kinds == tuple(load_kinds())
    assert pictures.web.tolist() == [True, False] * len(pairs)
    assert pictures.instance.tolist() == [at // 2 for at in range(2 * len(pairs))]
    assert ((pictures.azimuth >= 0) & (pictures.azimuth < 360)).all()
    assert pictures.fronted[0] == load_kinds()["cat"].front
    cover = (pictures.rgba[..., 3] > 127).mean(axis=(1, 2))
    assert 0.05 < cover.min() < cover.max() < 0.9
    assert (pictures.rgba[..., :3].max(axis=-1) <= pictures.rgba[..., 3]).all()  # premultiplied
    red = pictures.rgba[named.index(("mug", "red"))].astype(float).sum(axis=(0, 1))
    assert red[0] > 1.5 * red[2]


def test_rendering_goes_on_where_it_stopped_and_stops_when_all_is_there(
    renders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rgba.npy", "labels.npy", "plan.json", "set.json", "done.txt"):
        (tmp_path / name).write_bytes((renders / name).read_bytes())
    whole = np.load(renders / "rgba.npy")
    monkeypatch.setattr(render_library, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(render_library, "SUPERSAMPLE", 1)
    started = Inline.started
    render_library.render_set(tmp_path, "train", LAYOUT, kinds=CHOSEN)
    assert Inline.started == started
    # As after a kill: two pairs are not in the journal, nor on disk.
    (tmp_path / "set.json").unlink()
    lines = (tmp_path / "done.txt").read_text("utf-8").split()
    (tmp_path / "done.txt").write_text("\n".join(lines[:3] + lines[4:-1]) + "\n", encoding="utf-8")
    rgba = np.load(tmp_path / "rgba.npy", mmap_mode="r+")
    rgba[6:8], rgba[-2:], rgba[0] = 0, 0, 7
    rgba.flush()
    with pytest.raises(FileNotFoundError, match="no finished set"):
        PictureSet.open(tmp_path)
    render_library.render_set(tmp_path, "train", LAYOUT, kinds=CHOSEN)
    assert Inline.started == started + 1
    again = np.load(tmp_path / "rgba.npy")
    np.testing.assert_array_equal(again[1:], whole[1:])
    assert (again[0] == 7).all()  # what the journal has is not rendered again
    assert sorted((tmp_path / "done.txt").read_text("utf-8").split()) == sorted(lines)
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), np.load(renders / "labels.npy"))


def test_another_layout_starts_over_with_other_objects(
    renders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render_library, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(render_library, "SUPERSAMPLE", 1)
    monkeypatch.setattr(render_library, "DESCRIPTORS", DESCRIPTORS[:2])
    render_library.render_set(tmp_path, "judge", (1, 0, 1), kinds=["mug"])
    first = np.load(tmp_path / "rgba.npy")
    assert first.shape == (2, SIDE, SIDE, 4)
    render_library.render_set(tmp_path, "judge", (1, 0, 2), kinds=["mug"])
    assert np.load(tmp_path / "rgba.npy").shape == (4, SIDE, SIDE, 4)
    assert json.loads((tmp_path / "set.json").read_text("utf-8"))["plan"] == [1, 0, 2]


def test_pictures_are_developed_in_every_style(renders: Path) -> None:
    pictures = PictureSet.open(renders)
    rgba = pictures.batch(np.array([3, 0, 3]))
    torch.testing.assert_close(rgba[0], rgba[2])  # the order of the rows is kept
    torch.testing.assert_close(rgba[1], torch.from_numpy(pictures.rgba[0] / 255.0).permute(2, 0, 1).float())
    generator = torch.Generator().manual_seed(0)
    background = random_backgrounds(200, generator)
    assert background.shape == (200, 3)
    assert background.min() >= 0.1
    assert background.max() <= 0.92  # no white ground
    one = rgba[:1].expand(STYLE_COUNT, -1, -1, -1)
    images = develop(one, torch.full((STYLE_COUNT, 3), 0.5), torch.arange(STYLE_COUNT))
    assert images.shape == (STYLE_COUNT, 3, SIDE, SIDE)
    assert images.min() >= 0.0
    assert images.max() <= 1.0
    torch.testing.assert_close(images[0], images[1])
    assert (images[0] - images[2]).abs().max() > 0.05
    assert (images[0] - images[3]).abs().max() > 0.05
    corner = images[:, :, 0, 0]
    torch.testing.assert_close(corner, torch.full_like(corner, 0.5))


@pytest.fixture(scope="module")
def vae(renders: Path, folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_autoencoder, "BATCH", 4)
        draw = train_autoencoder.draw_pictures  # 512 of them measure the latents
        patch.setattr(
            train_autoencoder, "draw_pictures", lambda a, b, count, g, **more: draw(a, b, min(count, 64), g, **more)
        )
        train_autoencoder.train_autoencoder(renders, folder / "autoencoder", PLAN, channels=(8, 8, 8))
    return folder / "autoencoder" / "vae"


def test_the_autoencoder(vae: Path) -> None:
    from diffusers import AutoencoderKL

    assert log_steps(vae.parent) == ["step", "1", "2", "3"]
    model = AutoencoderKL.from_pretrained(vae, local_files_only=True).eval()
    assert model.config.scaling_factor == 1.0
    measured = json.loads((vae.parent / "latents.json").read_text("utf-8"))
    assert len(measured["channel_mean"]) == len(measured["channel_std"]) == 4
    with torch.no_grad():
        latents = model.encode(torch.zeros(1, 3, SIDE, SIDE)).latent_dist.mean
        assert latents.shape == (1, 4, SIDE // 4, SIDE // 4)
        assert model.decode(latents).sample.shape == (1, 3, SIDE, SIDE)
    assert not list(vae.glob("*.bin"))


def test_latents_are_normalised_inside_the_weights(vae: Path) -> None:
    from diffusers import AutoencoderKL

    model = AutoencoderKL.from_pretrained(vae, local_files_only=True).eval()
    with torch.no_grad():
        for parameter in model.quant_conv.parameters():  # latents with channels of their own means and deviations
            parameter.normal_(generator=torch.Generator().manual_seed(4))
        pictures = torch.rand(16, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5)) * 2.0 - 1.0
        before = model.encode(pictures).latent_dist
        decoded = model.decode(before.mean).sample
        mean, std = before.mean.mean(dim=(0, 2, 3)), before.mean.std(dim=(0, 2, 3))
        assert mean.abs().max() > 0.1
        train_autoencoder.normalise_latents(model, mean.tolist(), std.tolist())
        after = model.encode(pictures).latent_dist
        torch.testing.assert_close(after.mean.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-3, rtol=0)
        torch.testing.assert_close(after.mean.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)
        torch.testing.assert_close(after.std, before.std / std.view(1, 4, 1, 1), atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(model.decode(after.mean).sample, decoded, atol=1e-4, rtol=1e-3)


def test_channels_that_copy_each_other_are_penalised() -> None:
    latents = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(6))
    assert train_autoencoder._correlation(latents) < 0.01
    latents[:, 3] = -2.0 * latents[:, 0] + 1.0
    assert train_autoencoder._correlation(latents) == pytest.approx(2.0 / 12.0, abs=0.01)


def test_spoilt_pictures_are_pictures_and_no_longer_the_same() -> None:
    pictures = torch.rand(32, 3, SIDE, SIDE)
    spoilt = train_autoencoder.spoil(pictures, torch.Generator().manual_seed(1))
    assert spoilt.shape == pictures.shape
    assert spoilt.min() >= 0.0
    assert spoilt.max() <= 1.0
    assert ((spoilt - pictures).abs().amax(dim=(1, 2, 3)) > 0.01).all()


@pytest.mark.usefixtures("small")
def test_the_diffusion_model_samples_through_an_unmodified_pipeline(
    renders: Path, vae: Path, tiny_clip: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import StableDiffusionPipeline

    arguments = (renders, vae, tiny_clip, folder / "diffusion", PLAN)
    train_diffusion.train_diffusion(*arguments, channels=(8, 8, 16), until=2)
    pipeline = StableDiffusionPipeline.from_pretrained(folder / "diffusion" / "pipeline", local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(1)
    out = pipeline(
        "a red cat, back view", num_inference_steps=2, guidance_scale=5.0, output_type="np", generator=generator
    )
    assert out.images.shape == (1, SIDE, SIDE, 3)
    assert np.isfinite(out.images).all()
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.tokenizer.model_max_length == CONTEXT
    files = {path.suffix for path in (folder / "diffusion" / "pipeline").rglob("*") if path.is_file()}
    assert files <= {".json", ".safetensors", ".txt"}
    # The latents are of web pictures that are not held out, each in several developments, and are kept for the resume.
    pictures = PictureSet.open(renders)
    rows = train_diffusion.allowed_rows(pictures)
    held = [pair for pair in held_out_pairs(pictures.kinds, tuple(COLORS)) if pair[0] in CHOSEN]
    assert len(rows) == len(CHOSEN) * len(DESCRIPTORS) - len(held)
    latents = np.load(folder / "diffusion" / "latents.npy")
    assert latents.shape == (train_diffusion.VARIANTS * len(rows), 4, SIDE // 4, SIDE // 4)
    assert 0.5 < latents.std() < 2.0
    styles = np.load(folder / "diffusion" / "styles.npy")
    assert (styles.dtype, set(styles.tolist()) <= set(range(STYLE_COUNT))) == (np.int64, True)
    monkeypatch.setattr(train_diffusion, "develop", None)  # encoding again would call it
    modules = train_diffusion.train_diffusion(*arguments, channels=(8, 8, 16))
    assert set(modules) == {"unet", "text_encoder"}
    assert log_steps(folder / "diffusion") == ["step", "1", "2", "3"]


def test_the_text_encoder_starts_as_the_one_of_clip(tiny_clip: Path) -> None:
    from transformers import CLIPModel

    clip = CLIPModel.from_pretrained(tiny_clip, local_files_only=True).eval()
    encoder = train_diffusion.text_encoder_of(tiny_clip).eval()
    tokens = torch.tensor([[clip.config.text_config.bos_token_id, 5, 9, clip.config.text_config.eos_token_id]])
    with torch.no_grad():
        torch.testing.assert_close(encoder(tokens)[0], clip.text_model(tokens)[0])


@pytest.mark.usefixtures("small")
def test_polishing_moves_the_decoder_and_nothing_else(renders: Path, vae: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL
    from safetensors.torch import load_file

    shutil.copytree(vae, tmp_path / "vae")
    before = load_file(vae / "diffusion_pytorch_model.safetensors")
    train_autoencoder.polish_decoder(renders, tmp_path, PLAN)
    assert log_steps(tmp_path / "polish") == ["step", "1", "2", "3"]
    after = load_file(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    moved = {name.partition(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {"decoder", "post_quant_conv"}
    train_autoencoder.polish_decoder(renders, tmp_path, PLAN)  # done already
    again = load_file(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in after.items())
    pictures, model = PictureSet.open(renders), AutoencoderKL.from_pretrained(tmp_path / "vae").eval()
    train_diffusion.encode_pictures(model, pictures, np.arange(3), tmp_path, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_diffusion, "develop", None)  # encoding again would call it
        old = AutoencoderKL.from_pretrained(vae).eval()
        train_diffusion.encode_pictures(old, pictures, np.arange(3), tmp_path, 1)


def test_latents_are_encoded_anew_for_another_encoder(renders: Path, vae: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    model, pictures = AutoencoderKL.from_pretrained(vae, local_files_only=True).eval(), PictureSet.open(renders)
    first, _ = train_diffusion.encode_pictures(model, pictures, np.arange(3), tmp_path, 1)
    same, _ = train_diffusion.encode_pictures(model, pictures, np.arange(3), tmp_path, 1)
    assert torch.equal(first, same)
    with torch.no_grad():
        model.quant_conv.bias.add_(1.0)
    moved, _ = train_diffusion.encode_pictures(model, pictures, np.arange(3), tmp_path, 1)
    assert not torch.equal(first, moved)


@pytest.mark.usefixtures("small")
def test_clip(renders: Path, folder: Path) -> None:
    from PIL import Image
    from transformers import CLIPModel, CLIPProcessor

    train_clip.train_clip((renders, renders), folder / "clip-run", PLAN, width=32, layers=1)
    assert log_steps(folder / "clip-run") == ["step", "1", "2", "3"]
    assert log_steps(folder / "clip-run" / "kin") == ["step", "1"]
    model = CLIPModel.from_pretrained(folder / "clip-run" / "clip", local_files_only=True).eval()
    processor = CLIPProcessor.from_pretrained(folder / "clip-run" / "clip", local_files_only=True)
    picture = Image.new("RGB", (96, 128), (255, 0, 127))
    inputs = processor(text=["a red cat", "back view"], images=picture, return_tensors="pt", padding="max_length")
    values = inputs["pixel_values"]
    assert values.shape == (1, 3, SIDE, SIDE)
    assert values[0, :, 5, 5].tolist() == pytest.approx([1.0, -1.0, 127 / 127.5 - 1.0], abs=1e-3)
    with torch.no_grad():
        assert model(**inputs).logits_per_image.shape == (1, 2)


def test_pairs_of_a_kind_count_a_little_unless_left_out() -> None:
    left_out = np.zeros((4, 4), bool)
    left_out[1, 2] = left_out[2, 1] = True
    targets = train_clip.soft_targets(np.array([5, 7, 7, 7]), left_out, 0.25)
    expected = [[1, 0, 0, 0], [0, 0.8, 0, 0.2], [0, 0, 0.8, 0.2], [0, 1 / 6, 1 / 6, 2 / 3]]
    torch.testing.assert_close(targets, torch.tensor(expected))
    torch.testing.assert_close(train_clip.soft_targets(np.array([7, 7]), np.zeros((2, 2), bool), 0.0), torch.eye(2))


@pytest.mark.usefixtures("small")
def test_the_judge(renders: Path, folder: Path) -> None:
    train_judge.train_judge(renders, folder / "judge-run", PLAN, until=2)
    assert log_steps(folder / "judge-run") == ["step", "1", "2"]
    judge = Judge.load(folder / "judge-run" / "judge")
    assert judge.kinds == tuple(load_kinds())
    assert judge.descriptors == DESCRIPTORS
    assert judge.fronted[judge.kinds.index("cat")]
    verdict = judge.judge(torch.rand(2, SIDE, SIDE, 3))
    assert verdict.kind.shape == (2, len(judge.kinds) + 1)


def test_broken_pictures_for_the_judge_have_their_shape() -> None:
    pixels = torch.rand(64, 3, SIDE, SIDE)
    broken = train_judge.broken_pictures(pixels, torch.Generator().manual_seed(2))
    assert broken.shape == pixels.shape
    assert torch.isfinite(broken).all()
    assert ((broken - pixels).abs().mean(dim=(1, 2, 3)) > 0.02).all()


@pytest.mark.parametrize("tool", [render_library, train_autoencoder, train_clip, train_diffusion, train_judge])
def test_every_tool_explains_itself(
    tool: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [tool.__name__, "--help"])
    with pytest.raises(SystemExit) as caught:
        tool.main()
    assert caught.value.code == 0
    assert f"python -m {tool.__name__}" in capsys.readouterr().out
