"""Variational Score Distillation against an independent evaluation with merged weights."""

import copy

import pytest
import torch
from torch.nn import functional

from threestudio_redream.errors import ConfigError
from threestudio_redream.guidance.vsd import VSDGuidance
from threestudio_redream.prompt_processors.stable_diffusion import StableDiffusionPromptProcessor

CAMERAS = (torch.tensor([10.0, 70.0]), torch.tensor([0.0, 120.0]), torch.tensor([1.5, 1.5]))
C2W = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(8))
FLAT = C2W.flatten(1)


def make(model, disturbed=True, **keys):
    guidance = VSDGuidance({"pretrained_model_name_or_path": str(model), "guidance_scale": 3.0, **keys})
    if disturbed:  # as after some training
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for parameter in guidance.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return guidance


@pytest.fixture(scope="module")
def prompts(tiny_model, tmp_path_factory):
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.chdir(tmp_path_factory.mktemp("cache"))
    processor = StableDiffusionPromptProcessor(
        {"pretrained_model_name_or_path": str(tiny_model), "prompt": "a red cat"}
    )
    monkeypatch.undo()
    return processor()


def latents_of(seed=0):
    return torch.randn(2, 16, 16, 4, generator=torch.Generator().manual_seed(seed))


def merged(guidance):
    """A plain UNet that answers as the particles' LoRA does, told the camera."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_config(guidance.particle_model.unet.config).eval()
    state = {}
    for name, value in guidance.particle_model.unet.state_dict().items():
        if "lora_" not in name:
            state[name.replace(".base_layer", "")] = value.clone()
    for name, down in guidance.lora.items():
        if "lora_A" in name:
            up = guidance.lora[name.replace("lora_A", "lora_B")]
            state[name.replace("|", ".").replace("lora_A.particles.", "")] += (up @ down).detach()
    unet.load_state_dict(state)
    embedding = guidance.camera_embedding

    def answer(noisy, steps, context, camera):
        hook = None
        if camera is not None:
            hidden = functional.silu(camera @ embedding.first.weight.T + embedding.first.bias)
            said = hidden @ embedding.last.weight.T + embedding.last.bias
            hook = unet.time_embedding.register_forward_hook(lambda module, inputs, output: output + said)
        try:
            return unet(noisy, steps, encoder_hidden_states=context).sample
        finally:
            if hook:
                hook.remove()

    return answer


def noise_of(output, noisy, alpha, sigma, kind):
    return alpha * output + sigma * noisy if kind == "v_prediction" else output


@torch.no_grad()
def reference(guidance, prompts, latents, seed, camera=FLAT, scale=3.0, lora_scale=1.0):
    """w (eps_target - eps_particles) for latents [B, 4, h, w], and its ingredients."""
    generator = torch.Generator().manual_seed(seed)
    steps = guidance.sample_timesteps(2, "cpu", generator)
    noise = torch.randn(latents.shape, generator=generator)
    cumulative = guidance.model.alphas_cumprod[steps].view(-1, 1, 1, 1)
    alpha, sigma = cumulative.sqrt(), (1 - cumulative).sqrt()
    noisy = alpha * latents + sigma * noise
    kind = guidance.model.prediction_type
    plain = copy.deepcopy(guidance.model.unet)
    conditional, unconditional = (
        plain(noisy, steps, encoder_hidden_states=part).sample
        for part in prompts.get_text_embeddings(*CAMERAS).chunk(2)
    )
    target = noise_of(unconditional + scale * (conditional - unconditional), noisy, alpha, sigma, kind)
    ask = merged(guidance)
    with_text, _ = prompts.get_text_embeddings(*CAMERAS, False).chunk(2)
    output = ask(noisy, steps, with_text, camera)
    if lora_scale != 1.0:
        hidden = ask(noisy, steps, with_text, None if camera is None else torch.zeros_like(camera))
        output = hidden + lora_scale * (output - hidden)
    particles = noise_of(output, noisy, alpha, sigma, kind)
    return sigma**2 * (target - particles), alpha, sigma, generator


@pytest.mark.parametrize("kind", ["v", "epsilon"])
@pytest.mark.parametrize("lora_scale", [1.0, 0.7])
@pytest.mark.parametrize("one_call", [True, False])
def test_gradient_on_latents_is_the_formula(tiny_model, tiny_epsilon_model, prompts, kind, lora_scale, one_call):
    model = tiny_model if kind == "v" else tiny_epsilon_model
    guidance = make(model, guidance_scale_lora=lora_scale, one_call=one_call)
    latents = latents_of().requires_grad_(True)
    generator = torch.Generator().manual_seed(7)
    said = guidance(latents, prompts, *CAMERAS, c2w=C2W, rgb_as_latents=True, generator=generator)
    said["loss_vsd"].backward()
    expected, *_ = reference(guidance, prompts, latents.detach().permute(0, 3, 1, 2), 7, lora_scale=lora_scale)
    torch.testing.assert_close(latents.grad.permute(0, 3, 1, 2), expected / 2, rtol=1e-3, atol=1e-5)
    assert float(said["grad_norm"]) == pytest.approx(float(expected.norm()), rel=1e-3)


def test_without_a_camera_condition(tiny_model, prompts):
    guidance = make(tiny_model, camera_condition="none")
    assert all(name.startswith("lora.") for name, _ in guidance.named_parameters())
    latents = latents_of().requires_grad_(True)
    generator = torch.Generator().manual_seed(7)
    guidance(latents, prompts, *CAMERAS, rgb_as_latents=True, generator=generator)["loss_vsd"].backward()
    expected, *_ = reference(guidance, prompts, latents.detach().permute(0, 3, 1, 2), 7, camera=None)
    torch.testing.assert_close(latents.grad.permute(0, 3, 1, 2), expected / 2, rtol=1e-3, atol=1e-5)


def test_encoder_gradient_is_the_latent_gradient_pulled_back(tiny_model, prompts):
    guidance = make(tiny_model, gradient="encoder")
    images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    generator = torch.Generator().manual_seed(7)
    guidance(images, prompts, *CAMERAS, c2w=C2W, generator=generator)["loss_vsd"].backward()
    again = images.detach().clone().requires_grad_(True)
    encoded = guidance.model.encode(again)
    grad, *_ = reference(guidance, prompts, encoded.detach(), 7)
    encoded.backward(grad / 2)
    torch.testing.assert_close(images.grad, again.grad, rtol=1e-3, atol=1e-6)


def test_decoder_gradient_is_the_difference_of_two_decodings(tiny_model, prompts):
    guidance = make(tiny_model, gradient="decoder")
    images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    generator = torch.Generator().manual_seed(7)
    guidance(images, prompts, *CAMERAS, c2w=C2W, generator=generator)["loss_vsd"].backward()
    with torch.no_grad():
        z = guidance.model.encode(images)
        grad, alpha, sigma, _ = reference(guidance, prompts, z, 7)
        residual = grad / sigma**2
        moved = guidance.model.decode(z - sigma / alpha * residual) - guidance.model.decode(z)
        expected = -(sigma**2 * alpha / sigma) * moved / (2 * 12)
    torch.testing.assert_close(images.grad, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("gradient", ["encoder", "decoder"])
def test_it_starts_at_rest_where_both_scores_are_the_same(tiny_model, prompts, gradient):
    guidance = make(tiny_model, disturbed=False, guidance_scale=1.0, view_dependent_prompting=False, gradient=gradient)
    images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    guidance(images, prompts, *CAMERAS, c2w=C2W, generator=torch.Generator().manual_seed(7))["loss_vsd"].backward()
    assert float(images.grad.abs().max()) < 1e-6


@pytest.mark.parametrize("kind", ["v", "epsilon"])
def test_the_loss_of_the_lora_is_the_denoising_error(tiny_model, tiny_epsilon_model, prompts, kind):
    guidance = make(tiny_model if kind == "v" else tiny_epsilon_model, camera_dropout=0.5, lora_samples=3)
    latents = latents_of()
    generator = torch.Generator().manual_seed(7)
    said = guidance(latents, prompts, *CAMERAS, c2w=C2W, rgb_as_latents=True, generator=generator)
    clean = latents.permute(0, 3, 1, 2)
    *_, generator = reference(guidance, prompts, clean, 7)
    clean = clean.repeat(3, 1, 1, 1)
    steps = torch.randint(0, 1000, (6,), generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    shown = torch.rand(6, 1, generator=generator) >= 0.5
    assert 0 < int(shown.sum()) < 6
    cumulative = guidance.model.alphas_cumprod[steps].view(-1, 1, 1, 1)
    alpha, sigma = cumulative.sqrt(), (1 - cumulative).sqrt()
    text = prompts.get_text_embeddings(*CAMERAS, False)[:2].repeat(3, 1, 1)
    with torch.no_grad():
        output = merged(guidance)(alpha * clean + sigma * noise, steps, text, C2W.flatten(1).repeat(3, 1) * shown)
    wanted = alpha * noise - sigma * clean if kind == "v" else noise
    assert float(said["loss_lora"].detach()) == pytest.approx(float((output - wanted).square().mean()), rel=1e-4)


def test_who_gets_gradients(tiny_model, prompts):
    guidance = make(tiny_model)
    images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    said = guidance(images, prompts, *CAMERAS, c2w=C2W, generator=torch.Generator().manual_seed(7))
    said["loss_vsd"].backward(retain_graph=True)
    assert images.grad is not None
    assert all(parameter.grad is None for parameter in guidance.parameters())
    images.grad = None
    said["loss_lora"].backward()
    assert images.grad is None
    assert all(bool(parameter.grad.any()) for parameter in guidance.parameters())
    assert all(parameter.grad is None for parameter in guidance.model.vae.parameters())
    names = {name.partition(".")[0] for name, _ in guidance.named_parameters()}
    assert names == {"lora", "camera_embedding"}


def test_the_lora_learns_the_renders(tiny_model, prompts):
    guidance = make(tiny_model, disturbed=False)
    optimizer = torch.optim.Adam(guidance.parameters(), lr=1e-2)
    latents, losses = latents_of(), []
    for _ in range(25):
        generator = torch.Generator().manual_seed(1)
        loss = guidance(latents, prompts, *CAMERAS, c2w=C2W, rgb_as_latents=True, generator=generator)["loss_lora"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_a_second_model_for_the_particles(tiny_model, tiny_epsilon_model, prompts):
    guidance = make(tiny_model, particle_model_name_or_path=str(tiny_epsilon_model))
    assert guidance.particle_model is not guidance.model
    assert guidance.particle_model.prediction_type == "epsilon"
    assert not guidance.switched.names
    latents = latents_of().requires_grad_(True)
    generator = torch.Generator().manual_seed(7)
    said = guidance(latents, prompts, *CAMERAS, c2w=C2W, rgb_as_latents=True, generator=generator)
    (said["loss_vsd"] + said["loss_lora"]).backward()
    assert bool(latents.grad.any())


def test_checkpoints_hold_what_is_trained_and_nothing_else(tiny_model, prompts):
    first, second = make(tiny_model), make(tiny_model, disturbed=False)
    state = first.state_dict()
    assert len(state) == len(list(first.parameters()))
    second.load_state_dict(state)

    def loss(guidance):
        generator = torch.Generator().manual_seed(7)
        out = guidance(latents_of(), prompts, *CAMERAS, c2w=C2W, rgb_as_latents=True, generator=generator)
        return float(out["loss_vsd"].detach()), float(out["loss_lora"].detach())

    assert loss(first) == loss(second)


def test_gradient_clipping_limits_every_element(tiny_model, prompts):
    guidance = make(tiny_model, grad_clip=1e-3)
    latents = latents_of().requires_grad_(True)
    generator = torch.Generator().manual_seed(7)
    guidance(latents, prompts, *CAMERAS, c2w=C2W, rgb_as_latents=True, generator=generator)["loss_vsd"].backward()
    assert float(latents.grad.abs().max()) == pytest.approx(5e-4, rel=1e-3)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"gradient": "sideways"}, "way for the gradient"),
        ({"weighting": "heavy"}, "weighting"),
        ({"camera_condition": "euler"}, "camera condition"),
        ({"camera_dropout": 1.5}, "camera_dropout"),
        ({"lora_samples": 0}, "lora_samples"),
        ({"lora_rank": 0}, "rank"),
    ],
)
def test_bad_settings_are_named(tiny_model, keys, message):
    with pytest.raises(ConfigError, match=message):
        make(tiny_model, disturbed=False, **keys)


def test_a_missing_camera_is_named(tiny_model, prompts):
    guidance = make(tiny_model)
    for c2w in (None, C2W[:1]):
        with pytest.raises(ConfigError, match="c2w"):
            guidance(latents_of(), prompts, *CAMERAS, c2w=c2w, rgb_as_latents=True)
