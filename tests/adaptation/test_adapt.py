"""Adaptation: the loss of Eq. 5, what is trained, exact resume, files that diffusers reads."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from threestudio_redream.adaptation.files import LORA_FILE, load_adaptation, save_adaptation
from threestudio_redream.adaptation.probe import view_accuracy
from threestudio_redream.adaptation.references import ReferenceConfig, render_references
from threestudio_redream.adaptation.training import STREAM, AdaptationConfig, adapt
from threestudio_redream.adaptation.view_tokens import VIEWS, TokenizedEncoder, view_phrase
from threestudio_redream.assets import normalise, sample_asset
from threestudio_redream.errors import CheckpointError, ConfigError
from threestudio_redream.guidance.adapters import SwitchedUNet
from threestudio_redream.guidance.latent_diffusion import LatentDiffusion
from threestudio_redream.guidance.sampling import sample_latents
from threestudio_redream.runtime.rng import step_generator

FAST = {"steps": 4, "batch_size": 3, "warmup": 1, "probe_every": 2, "save_every": 2}


@pytest.fixture(scope="module")
def references():
    cfg = ReferenceConfig(views_per_asset=12, elevation_range=(0.0, 75.0))
    return render_references([normalise(sample_asset())], ["a red cat"], cfg)


class Prior:
    """A model with its adapter and its text encoder, as they are before adaptation."""

    def __init__(self, folder, dtype="float32", **keys):
        from transformers import CLIPTextModel, CLIPTokenizer

        self.model = LatentDiffusion.load(str(folder), dtype=dtype)
        self.switched = SwitchedUNet(self.model.unet)
        self.switched.add("particles")
        self.switched.add("views", trainable=False, **keys)
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.encoder = TokenizedEncoder(tokenizer, CLIPTextModel.from_pretrained(folder / "text_encoder"))

    def adapt(self, references, *, folder=None, facts=None, **keys):
        cfg = AdaptationConfig(**{**FAST, **keys})
        return adapt(self.model, self.switched, self.encoder, references, cfg, folder=folder, facts=facts)


def same(first, second):
    return all(torch.equal(value, second.lora[name]) for name, value in first.lora.items()) and (
        first.vectors is second.vectors is None or torch.equal(first.vectors, second.vectors)
    )


@pytest.mark.parametrize("kind", ["v", "epsilon"])
def test_the_loss_is_equation_5(tiny_model, tiny_epsilon_model, references, kind):
    folder = tiny_model if kind == "v" else tiny_epsilon_model
    prior = Prior(folder)
    result = prior.adapt(references, steps=1, probe_every=0)
    generator = step_generator(0, 0, STREAM)
    images, rows = references.draw(3, generator)
    fresh = Prior(folder)
    with torch.no_grad():
        z = fresh.model.vae.encode(images.permute(0, 3, 1, 2) * 2 - 1).latent_dist.mean * 0.7
        kept = torch.rand(3, 2, generator=generator)[:, 0]
        steps = torch.randint(0, 1000, (3,), generator=generator)
        noise = torch.randn(z.shape, generator=generator)
        cumulative = fresh.model.alphas_cumprod[steps].view(-1, 1, 1, 1)
        alpha, sigma = cumulative.sqrt(), (1 - cumulative).sqrt()
        texts = [view_phrase("a red cat", VIEWS[i]) if k >= 0.1 else "" for i, k in zip(references.view[rows], kept)]
        context = fresh.encoder(texts)
        output = fresh.model.unet(alpha * z + sigma * noise, steps, encoder_hidden_states=context).sample
        wanted = alpha * noise - sigma * z if kind == "v" else noise
    assert result.history[0]["loss"] == pytest.approx(float((output - wanted).square().mean()), rel=1e-4)


def test_adapter_and_tokens_are_trained_and_nothing_else(tiny_model, references):
    prior, fresh = Prior(tiny_model), Prior(tiny_model)
    result = prior.adapt(references, caption_dropout=0.0)
    before, after = (dict(each.model.unet.named_parameters()) for each in (fresh, prior))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(prior.switched.parameters("views"))
    assert not torch.equal(result.vectors, fresh.encoder.vectors)
    text = dict(fresh.encoder.encoder.named_parameters())
    assert all(torch.equal(value, text[name]) for name, value in prior.encoder.encoder.named_parameters())
    trainable = {name for name, value in after.items() if value.requires_grad}
    assert trainable == set(prior.switched.parameters("particles"))  # as before
    assert all(value.grad is None for value in after.values())


def test_words_can_stay_words(tiny_model, references):
    prior = Prior(tiny_model)
    start = prior.encoder.vectors.detach().clone()
    assert prior.adapt(references, learn_tokens=False).vectors is None
    assert torch.equal(prior.encoder.vectors, start)


def test_it_learns(tiny_model, references):
    history = Prior(tiny_model).adapt(references, steps=60, probe_every=20, lr=2e-2, batch_size=8).history
    assert [row["step"] for row in history] == [20, 40, 60]
    assert history[-1]["loss"] < 0.97 * history[0]["loss"]
    assert all(0.0 <= row["view_accuracy"] <= 1.0 for row in history)


@pytest.mark.parametrize("keys", [{}, {"preservation": 0.5, "preservation_images": 2}])
def test_a_run_that_was_stopped_ends_in_the_same_bits(tiny_model, references, tmp_path, monkeypatch, keys):
    whole = Prior(tiny_model).adapt(references, folder=tmp_path / "whole", steps=5, **keys)
    torch.rand(7)

    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    # Killed in the fourth step; the checkpoint is of the second.
    draws = type(references).draw
    count = []

    def draw(self, number, generator):
        count.append(0)
        return stop() if len(count) == 4 else draws(self, number, generator)

    with monkeypatch.context() as patch:
        patch.setattr("threestudio_redream.adaptation.training.view_accuracy", lambda *_, **__: 0.5)
        patch.setattr(type(references), "draw", draw)
        with pytest.raises(Stop):
            Prior(tiny_model).adapt(references, folder=tmp_path / "cut", steps=5, **keys)
    resumed = Prior(tiny_model).adapt(references, folder=tmp_path / "cut", steps=5, **keys)
    assert same(whole, resumed)
    assert [row["step"] for row in resumed.history] == [2, 4, 5]
    again = Prior(tiny_model).adapt(references, folder=tmp_path / "cut", steps=5, **keys)
    assert same(whole, again)
    with pytest.raises(CheckpointError, match="another one"):
        Prior(tiny_model).adapt(references, folder=tmp_path / "cut", steps=5, lr=1e-2, **keys)


def test_a_checkpoint_belongs_to_its_model_and_its_views(tiny_model, references, tmp_path):
    first = Prior(tiny_model).adapt(references, folder=tmp_path, facts={"model": "a"})
    assert same(first, Prior(tiny_model).adapt(references, folder=tmp_path, facts={"model": "a"}))
    turned = replace(references, view=(references.view + 1) % len(VIEWS))
    darker = replace(references, background_range=(0.0, 0.1))
    for other, facts in ((references, {"model": "b"}), (turned, {"model": "a"}), (darker, {"model": "a"})):
        with pytest.raises(CheckpointError, match="another one"):
            Prior(tiny_model).adapt(other, folder=tmp_path, facts=facts)


def test_one_checkpoint_at_the_end_is_enough(tiny_model, references, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr("threestudio_redream.adaptation.training.write_checkpoint", lambda _, tree: saved.append(tree))
    Prior(tiny_model).adapt(references, folder=tmp_path, save_every=0, probe_every=0)
    assert [tree["step"] for tree in saved] == [4]


def test_half_precision_learns_the_same(tiny_model, references):
    """The first step of AdamW goes by the signs of gradients: those that vanish would not move."""
    moved = []
    for dtype in ("float32", "float16"):
        prior = Prior(tiny_model, dtype=dtype)
        before = prior.encoder.vectors.detach().clone()
        found = prior.adapt(references, steps=1, probe_every=0, weight_decay=0.0, caption_dropout=0.0)
        lora = [value.flatten() for name, value in found.lora.items() if ".lora_B." in name]
        moved.append(torch.cat([*lora, (found.vectors - before).flatten()]))
        assert prior.encoder.vectors._backward_hooks in (None, {})
    full, half = moved
    assert (full.sign() == half.sign()).float().mean() > 0.95


def test_a_gradient_beyond_half_precision_changes_nothing(tiny_model, references, monkeypatch):
    prior = Prior(tiny_model, dtype="float16")
    before = {name: value.detach().clone() for name, value in prior.switched.parameters("views").items()}
    monkeypatch.setattr("threestudio_redream.guidance.half_precision.FACTOR", 2.0**100)
    found = prior.adapt(references, steps=2, probe_every=0)
    assert all(torch.equal(value, before[name]) for name, value in found.lora.items())


def test_it_stops_when_views_are_told_apart(tiny_model, references, monkeypatch):
    told = iter([0.4, 0.9, 1.0])
    monkeypatch.setattr("threestudio_redream.adaptation.training.view_accuracy", lambda *_, **__: next(told))
    result = Prior(tiny_model).adapt(references, steps=8, probe_target=0.85)
    assert [(row["step"], row["view_accuracy"]) for row in result.history] == [(2, 0.4), (4, 0.9)]


def test_preserved_samples_are_made_without_the_adapter_and_seen(tiny_model, references):
    with_them = Prior(tiny_model).adapt(references, preservation=1.0, preservation_images=3, caption_dropout=0.0)
    without = Prior(tiny_model).adapt(references, caption_dropout=0.0)
    assert with_them.history[0]["loss"] != without.history[0]["loss"]
    # All pictures are samples under plain captions, so the tokens are never seen and never move.
    assert torch.equal(with_them.vectors, Prior(tiny_model).encoder.vectors)


def test_the_probe_finds_the_view_a_model_is_told(tiny_model, references):
    """A model that removes all noise when told the right view, and none otherwise."""
    model = LatentDiffusion.load(str(tiny_model))
    _, rows = references.draw(24, torch.Generator().manual_seed(0))
    views = torch.from_numpy(references.view[rows])
    noise = {}
    model.add_noise = lambda latents, eps, steps: noise.setdefault("now", eps) is None or noise.update(now=eps) or eps
    model.predict = lambda noisy, steps, context: torch.where((views == context).view(-1, 1, 1, 1), noise["now"], 0.0)
    model.read = lambda output, noisy, steps: type("Guess", (), {"noise": output})
    right = view_accuracy(model, references, lambda captions, view: torch.tensor(VIEWS.index(view)))
    assert right == 1.0
    wrong = view_accuracy(model, references, lambda captions, view: torch.tensor((VIEWS.index(view) + 1) % 4))
    assert wrong == 0.0


def test_files_are_read_by_an_unmodified_pipeline_and_back(tiny_model, references, tmp_path):
    from diffusers import StableDiffusionPipeline

    prior = Prior(tiny_model, rank=2, alpha=8.0)
    result = prior.adapt(references, lr=5e-2, rank=2, alpha=8.0)
    save_adaptation(result, tmp_path, rank=2, alpha=8.0, facts={"prompt": "a cat"})
    assert json.loads((tmp_path / "adaptation.json").read_text("utf-8"))["prompt"] == "a cat"
    found = load_adaptation(tmp_path, rank=2, alpha=8.0)
    for name, value in result.lora.items():
        torch.testing.assert_close(found.lora[name], value)
    assert torch.equal(found.vectors, result.vectors)

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    noisy, steps = torch.randn(2, 4, 16, 16), torch.tensor([100, 800])
    context = torch.randn(2, 9, 16)
    with torch.no_grad():
        plain = pipeline.unet(noisy, steps, encoder_hidden_states=context).sample
        pipeline.load_lora_weights(tmp_path, weight_name=LORA_FILE)
        theirs = pipeline.unet(noisy, steps, encoder_hidden_states=context).sample
        with prior.switched.using("views"):
            ours = prior.model.predict(noisy, steps, context)
    assert not torch.allclose(theirs, plain, atol=1e-3)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


def test_damaged_files_are_named(tiny_model, references, tmp_path):
    result = Prior(tiny_model).adapt(references, learn_tokens=False)
    save_adaptation(result, tmp_path, rank=4)
    assert load_adaptation(tmp_path, rank=4).vectors is None
    with pytest.raises(CheckpointError, match="rank 3"):
        load_adaptation(tmp_path, rank=3)
    lora, report = tmp_path / LORA_FILE, tmp_path / "adaptation.json"
    good = lora.read_bytes()
    name = next(iter(result.lora)).replace(".views.", ".")
    for spoil in (
        lambda: lora.write_bytes(good[:100]),
        lambda: save_file({"text_encoder.x": torch.zeros(4, 4)}, lora),
        lambda: save_file({f"unet.{name}": torch.full((4, 16), float("nan"))}, lora),
        lambda: (lora.write_bytes(good), report.write_text("[" * 10_000)),
        lambda: report.write_text("{}"),
        report.unlink,
    ):
        spoil()
        with pytest.raises(CheckpointError):
            load_adaptation(tmp_path, rank=4)


def test_timesteps_can_be_limited_to_where_views_are_decided(tiny_model, references, monkeypatch):
    seen, add_noise = [], LatentDiffusion.add_noise
    monkeypatch.setattr(
        LatentDiffusion,
        "add_noise",
        lambda self, z, noise, steps: seen.extend(steps) or add_noise(self, z, noise, steps),
    )
    Prior(tiny_model).adapt(references, probe_every=0, batch_size=16, min_step_percent=0.5, max_step_percent=0.9)
    assert min(seen) >= 500
    assert max(seen) < 900
    assert max(seen) - min(seen) > 300


@pytest.mark.parametrize(
    "keys",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"caption_dropout": 2.0},
        {"preservation": -1.0},
        {"min_step_percent": 1.0},
        {"save_every": -1},
        {"probe_every": -1},
    ],
)
def test_bad_settings_are_named(keys):
    with pytest.raises(ConfigError):
        AdaptationConfig(**keys)


def test_sampling_follows_ddim_of_diffusers(tiny_model):
    from diffusers import DDIMScheduler

    model = LatentDiffusion.load(str(tiny_model))
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    context = torch.randn(4, 9, 16, generator=torch.Generator().manual_seed(2))
    ours = sample_latents(model, context, noise, steps=10, guidance_scale=3.0)
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.set_timesteps(10)
    theirs = noise
    with torch.no_grad():
        for at in scheduler.timesteps:
            text, empty = model.unet(theirs.repeat(2, 1, 1, 1), at, encoder_hidden_states=context).sample.chunk(2)
            theirs = scheduler.step(empty + 3.0 * (text - empty), at, theirs).prev_sample
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
