"""Classifier-free guidance and Perp-Neg from one batch of answers, and the image loss beside the latent one."""

from __future__ import annotations

import copy

import pytest
import torch

from threestudio_redream.errors import ConfigError
from threestudio_redream.guidance.conditioning import Condition, condition_of
from threestudio_redream.guidance.sds import SDSGuidance
from threestudio_redream.guidance.vsd import VSDGuidance
from threestudio_redream.prompt_processors.stable_diffusion import StableDiffusionPromptProcessor

CAMERAS = (torch.tensor([10.0, 20.0, 70.0]), torch.tensor([30.0, 120.0, 0.0]), torch.full((3,), 1.5))
C2W = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(8))


@pytest.fixture(scope="module")
def prompts(tiny_model, tmp_path_factory):
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.chdir(tmp_path_factory.mktemp("cache"))
    name = {"pretrained_model_name_or_path": str(tiny_model), "prompt": "a red cat"}
    made = {
        kind: StableDiffusionPromptProcessor({**name, "use_perp_neg": kind == "perp"})() for kind in ("cfg", "perp")
    }
    monkeypatch.undo()
    return made


def test_guidance_of_two_answers():
    c, u = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Condition(torch.zeros(6, 1, 1)).combine(torch.cat([c, u]), 3.0), u + 3.0 * (c - u))


def test_negatives_push_along_what_the_prompt_does_not_say():
    c, u, first, second = torch.randn(4, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([[-1.0, 0.0], [-0.5, -2.0], [0.0, 0.0]])
    condition = Condition(torch.zeros(12, 1, 1), weights)
    said = condition.combine(torch.cat([c, u, first, second]), 2.0)
    expected = []
    for i in range(3):  # written out for one picture at a time
        along = (c - u)[i].flatten()
        total = along.clone()
        for weight, negative in zip(weights[i], (first, second)):
            off = (negative - u)[i].flatten()
            total += weight * (off - (off @ along) / (along @ along) * along)
        expected.append(u[i] + 2.0 * total.view_as(u[i]))
    torch.testing.assert_close(said, torch.stack(expected))
    torch.testing.assert_close(said[2], (u + 2.0 * (c - u))[2])  # no negatives: classifier-free guidance


def test_view_words_can_weigh_more_than_the_prompt(prompts):
    c, u, p = torch.randn(3, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    rows = torch.zeros(9, 1, 1)
    output = torch.cat([c, u, p])
    said = Condition(rows, view_scale=10.0).combine(output, 3.0)
    torch.testing.assert_close(said, u + 3.0 * (p - u) + 10.0 * (c - p))
    torch.testing.assert_close(Condition(rows, view_scale=3.0).combine(output, 3.0), u + 3.0 * (c - u))
    condition = condition_of(prompts["cfg"], CAMERAS, True, 10.0)
    with_words, without = (prompts["cfg"].get_text_embeddings(*CAMERAS, words) for words in (True, False))
    assert torch.equal(condition.embeddings, torch.cat([with_words, without[:3]]))
    assert condition.twice().blocks == condition.blocks == 3
    assert torch.equal(condition.twice().embeddings[:6], with_words[:3].repeat(2, 1, 1))
    for bad in ((prompts["perp"], True), (prompts["cfg"], False)):
        with pytest.raises(ConfigError, match="view_guidance_scale"):
            condition_of(bad[0], CAMERAS, bad[1], 10.0)


@pytest.mark.parametrize("one_call", [True, False])
def test_vsd_with_a_view_scale_is_the_formula(tiny_model, prompts, one_call):
    keys = {"pretrained_model_name_or_path": str(tiny_model), "guidance_scale": 3.0, "one_call": one_call}
    strong = gradient(VSDGuidance({**keys, "view_guidance_scale": 9.0}), prompts["cfg"], "vsd")
    same = gradient(VSDGuidance({**keys, "view_guidance_scale": 3.0}), prompts["cfg"], "vsd")
    usual = gradient(VSDGuidance(keys), prompts["cfg"], "vsd")
    torch.testing.assert_close(same, usual, rtol=1e-3, atol=1e-6)
    no_words = VSDGuidance({**keys, "view_dependent_prompting": False})
    words = (usual - gradient(no_words, prompts["cfg"], "vsd")) / 3.0
    torch.testing.assert_close(strong - usual, 6.0 * words, rtol=1e-3, atol=1e-5)
    sds = {key: value for key, value in keys.items() if key != "one_call"}
    difference = gradient(SDSGuidance({**sds, "view_guidance_scale": 9.0}), prompts["cfg"], "sds")
    difference = difference - gradient(SDSGuidance(sds), prompts["cfg"], "sds")
    torch.testing.assert_close(strong - usual, difference, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", [SDSGuidance, VSDGuidance])
def test_guidance_scales_follow_the_clock(tiny_model, kind):
    keys = {"pretrained_model_name_or_path": str(tiny_model)}
    guidance = kind({**keys, "guidance_scale": [0, 8.0, 4.0, 100], "view_guidance_scale": [50, 20.0, 10.0, 100]})
    found = []
    for step in (0, 50, 75, 300):
        guidance.update_step(0, step)
        found.append((guidance.guidance_scale, guidance.view_guidance_scale))
    assert found == [(8.0, 20.0), (6.0, 20.0), (5.0, 15.0), (4.0, 10.0)]
    plain = kind(keys)
    assert (plain.guidance_scale, plain.view_guidance_scale) == (kind.Config().guidance_scale, None)
    with pytest.raises(ConfigError, match="schedule"):
        kind({**keys, "guidance_scale": "large"})


def test_blocks_hold_one_row_for_every_view(prompts):
    condition = condition_of(prompts["perp"], CAMERAS, True)
    assert condition.blocks == 4
    blocks = condition.embeddings.chunk(4)
    for i in range(3):  # each view asked alone
        one = tuple(value[i : i + 1] for value in CAMERAS)
        embeddings, weights = prompts["perp"].get_text_embeddings_perp_neg(*one, True)
        for block, row in zip(blocks, embeddings):
            assert torch.equal(block[i], row)
        assert torch.equal(condition.weights[i], weights[0])
    twice = condition.twice()
    for block, double in zip(blocks, twice.embeddings.chunk(4)):
        assert torch.equal(double, torch.cat([block, block]))
    assert torch.equal(twice.weights, condition.weights.repeat(2, 1))
    plain = condition_of(prompts["cfg"], CAMERAS, True)
    assert plain.weights is None
    assert torch.equal(plain.embeddings, prompts["cfg"].get_text_embeddings(*CAMERAS, True))
    with pytest.raises(ConfigError, match="view-dependent"):
        condition_of(prompts["perp"], CAMERAS, False)


def gradient(guidance, prompts, kind, **batch):
    latents = torch.randn(3, 16, 16, 4, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    generator = torch.Generator().manual_seed(7)
    said = guidance(latents, prompts, *CAMERAS, c2w=C2W, rgb_as_latents=True, generator=generator, **batch)
    said[f"loss_{kind}"].backward()
    return latents.grad.permute(0, 3, 1, 2)


def test_sds_with_perp_neg_is_the_formula(tiny_model, prompts):
    guidance = SDSGuidance({"pretrained_model_name_or_path": str(tiny_model), "guidance_scale": 4.0})
    found = gradient(guidance, prompts["perp"], "sds")
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(3, 16, 16, 4, generator=torch.Generator().manual_seed(1)).permute(0, 3, 1, 2)
    steps = guidance.sample_timesteps(3, "cpu", generator)
    noise = torch.randn(latents.shape, generator=generator)
    cumulative = guidance.model.alphas_cumprod[steps].view(-1, 1, 1, 1)
    alpha, sigma = cumulative.sqrt(), (1 - cumulative).sqrt()
    noisy, unet = alpha * latents + sigma * noise, copy.deepcopy(guidance.model.unet)
    embeddings, weights = prompts["perp"].get_text_embeddings_perp_neg(*CAMERAS, True)

    @torch.no_grad()
    def noise_of(rows):
        return alpha * unet(noisy, steps, encoder_hidden_states=rows).sample + sigma * noisy

    c, u, first, second = (
        noise_of(rows) for rows in (embeddings[:3], embeddings[3:6], embeddings[6::2], embeddings[7::2])
    )
    direction = c - u
    for number, negative in enumerate((first, second)):
        off, along = (negative - u).flatten(1), (c - u).flatten(1)
        off = off - (off * along).sum(1, keepdim=True) / along.square().sum(1, keepdim=True) * along
        direction = direction + weights[:, number].view(-1, 1, 1, 1) * off.view_as(u)
    expected = sigma**2 * (u + 4.0 * direction - noise) / 3
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(found, gradient(guidance, prompts["cfg"], "sds"), atol=1e-4)


@pytest.mark.parametrize("one_call", [True, False])
def test_vsd_with_perp_neg_differs_in_the_target_alone(tiny_model, prompts, one_call):
    keys = {"pretrained_model_name_or_path": str(tiny_model), "guidance_scale": 4.0}
    vsd = gradient(VSDGuidance({**keys, "one_call": one_call}), prompts["perp"], "vsd")
    plain = gradient(VSDGuidance({**keys, "one_call": one_call}), prompts["cfg"], "vsd")
    # an untrained LoRA says the same in both, so the difference is that of SDS
    sds = SDSGuidance(keys)
    difference = gradient(sds, prompts["perp"], "sds") - gradient(sds, prompts["cfg"], "sds")
    torch.testing.assert_close(vsd - plain, difference, rtol=1e-3, atol=1e-5)
    assert bool(difference.any())


@pytest.mark.parametrize("kind", [SDSGuidance, VSDGuidance])
def test_the_image_loss_pulls_towards_the_decoded_estimate(tiny_model, prompts, kind):
    name = "sds" if kind is SDSGuidance else "vsd"
    keys = {"pretrained_model_name_or_path": str(tiny_model), "guidance_scale": 4.0, "image_loss": True}
    guidance = kind(keys)
    images = torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(2)).requires_grad_(True)
    said = guidance(images, prompts["cfg"], *CAMERAS, c2w=C2W, generator=torch.Generator().manual_seed(7))
    (found,) = torch.autograd.grad(said["loss_image"], images)
    assert "loss_image" not in kind({**keys, "image_loss": False})(images, prompts["cfg"], *CAMERAS, c2w=C2W)
    with torch.no_grad():
        latents = guidance.model.encode(images)
    latents = latents.permute(0, 2, 3, 1).requires_grad_(True)
    alone = guidance(
        latents, prompts["cfg"], *CAMERAS, c2w=C2W, rgb_as_latents=True, generator=torch.Generator().manual_seed(7)
    )
    (grad,) = torch.autograd.grad(alone[f"loss_{name}"], latents)
    grad = 3.0 * grad.permute(0, 3, 1, 2)
    generator = torch.Generator().manual_seed(7)
    cumulative = guidance.model.alphas_cumprod[guidance.sample_timesteps(3, "cpu", generator)].view(-1, 1, 1, 1)
    alpha, sigma = cumulative.sqrt(), (1 - cumulative).sqrt()
    estimate = latents.detach().permute(0, 3, 1, 2) - grad * sigma / (sigma**2 * alpha)
    with torch.no_grad():
        wanted = guidance.model.decode(estimate)
    expected = sigma**2 * (images.detach() - wanted) / (3 * 12.0)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
