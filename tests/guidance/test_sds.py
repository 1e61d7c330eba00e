"""Score Distillation Sampling against a direct evaluation of its formula."""

import pytest
import torch

from threestudio_redream.errors import ConfigError
from threestudio_redream.guidance.losses import pixel_loss, timestep_weight
from threestudio_redream.guidance.sds import SDSGuidance
from threestudio_redream.prompt_processors.stable_diffusion import StableDiffusionPromptProcessor

CAMERAS = (torch.tensor([10.0, 70.0]), torch.tensor([0.0, 120.0]), torch.tensor([1.5, 1.5]))


def make(model, **keys):
    return SDSGuidance({"pretrained_model_name_or_path": str(model), "guidance_scale": 3.0, **keys})


@pytest.fixture(scope="module")
def prompts(tiny_model, tmp_path_factory):
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.chdir(tmp_path_factory.mktemp("cache"))
    processor = StableDiffusionPromptProcessor(
        {"pretrained_model_name_or_path": str(tiny_model), "prompt": "a red cat"}
    )
    monkeypatch.undo()
    return processor()


def draw(guidance, seed, shape):
    generator = torch.Generator().manual_seed(seed)
    steps = guidance.sample_timesteps(shape[0], "cpu", generator)
    return steps, torch.randn(shape, generator=generator)


@pytest.mark.parametrize("weighting", ["sds", "uniform", "fantasia3d"])
def test_gradient_on_latents_is_the_formula(tiny_model, prompts, weighting):
    guidance = make(tiny_model, weighting=weighting)
    latents = torch.randn(2, 16, 16, 4, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    said = guidance(latents, prompts, *CAMERAS, rgb_as_latents=True, generator=torch.Generator().manual_seed(7))
    said["loss_sds"].backward()

    steps, noise = draw(guidance, 7, (2, 4, 16, 16))
    cumulative = guidance.model.alphas_cumprod[steps].view(-1, 1, 1, 1)
    alpha, sigma = cumulative.sqrt(), (1 - cumulative).sqrt()
    noisy = alpha * latents.detach().permute(0, 3, 1, 2) + sigma * noise
    context = prompts.get_text_embeddings(*CAMERAS)
    with torch.no_grad():
        v = guidance.model.unet(noisy.repeat(2, 1, 1, 1), steps.repeat(2), encoder_hidden_states=context).sample
    conditional, unconditional = v.chunk(2)
    v = unconditional + 3.0 * (conditional - unconditional)
    weight = {"sds": sigma**2, "uniform": torch.ones_like(sigma), "fantasia3d": alpha * sigma**2}[weighting]
    expected = weight * (alpha * v + sigma * noisy - noise) / 2
    torch.testing.assert_close(latents.grad.permute(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-5)
    assert float(said["grad_norm"]) == pytest.approx(float((2 * expected).norm()), rel=1e-4)


def test_encoder_gradient_is_the_latent_gradient_pulled_back(tiny_model, prompts):
    guidance = make(tiny_model, gradient="encoder")
    images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    guidance(images, prompts, *CAMERAS, generator=torch.Generator().manual_seed(7))["loss_sds"].backward()

    latents = guidance.model.encode(images.detach()).permute(0, 2, 3, 1).requires_grad_(True)
    said = guidance(latents, prompts, *CAMERAS, rgb_as_latents=True, generator=torch.Generator().manual_seed(7))
    said["loss_sds"].backward()
    again = images.detach().clone().requires_grad_(True)
    guidance.model.encode(again).backward(latents.grad.permute(0, 3, 1, 2))
    torch.testing.assert_close(images.grad, again.grad, rtol=1e-4, atol=1e-7)


def test_decoder_gradient_points_to_the_decoded_guess(tiny_model, prompts):
    guidance = make(tiny_model, gradient="decoder")
    images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    guidance(images, prompts, *CAMERAS, generator=torch.Generator().manual_seed(7))["loss_sds"].backward()

    steps, noise = draw(guidance, 7, (2, 4, 16, 16))
    model = guidance.model
    with torch.no_grad():
        latents = model.encode(images)
        context = prompts.get_text_embeddings(*CAMERAS)
        target = model.decode(model.guided(model.add_noise(latents, noise, steps), steps, context, 3.0).clean)
    alpha, sigma = model.alpha_sigma(steps)
    expected = alpha * sigma * (images.detach() - target) / (2 * 12.0)
    torch.testing.assert_close(images.grad, expected, rtol=1e-2, atol=1e-5)


def test_renders_of_another_size_are_resized(tiny_model, prompts):
    guidance = make(tiny_model)
    images = torch.rand(2, 32, 32, 3, requires_grad=True)
    guidance(images, prompts, *CAMERAS)["loss_sds"].backward()
    assert images.grad.shape == images.shape
    assert float(images.grad.abs().sum()) > 0


def test_limit_of_the_gradient(tiny_model, prompts):
    guidance = make(tiny_model, grad_clip=1e-3)
    latents = torch.randn(2, 16, 16, 4).requires_grad_(True)
    guidance(latents, prompts, *CAMERAS, rgb_as_latents=True)["loss_sds"].backward()
    assert float(latents.grad.abs().max()) <= 0.5e-3 * 1.001


def test_timesteps_follow_the_schedule(tiny_model):
    guidance = make(tiny_model, max_step_percent=[0, 0.98, 0.5, 10])
    assert (guidance.min_step, guidance.max_step) == (20, 980)
    guidance.update_step(0, 10)
    assert guidance.max_step == 500


def test_the_same_generator_gives_the_same_loss(tiny_model, prompts):
    guidance = make(tiny_model)
    images = torch.rand(2, 64, 64, 3)
    losses = [
        float(guidance(images, prompts, *CAMERAS, generator=torch.Generator().manual_seed(1))["loss_sds"])
        for _ in range(2)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("keys", "value"), [({"gradient": "mesh"}, "mesh"), ({"weighting": "none"}, "none")])
def test_unknown_choices(tiny_model, keys, value):
    with pytest.raises(ConfigError) as error:
        make(tiny_model, **keys)
    assert error.value.received == value
    assert "Use one of" in error.value.fix


def test_weights_and_pixel_loss():
    alpha, sigma = torch.tensor([0.6]), torch.tensor([0.8])
    assert float(timestep_weight(alpha, sigma, "sds")) == pytest.approx(0.64)
    assert float(timestep_weight(alpha, sigma, "fantasia3d")) == pytest.approx(0.384)
    images = torch.zeros(1, 2, 2, 3, requires_grad=True)
    loss = pixel_loss(images, torch.ones(1, 2, 2, 3), torch.full((1, 1, 1, 1), 2.0), 4)
    assert loss.item() == pytest.approx(0.5 * 2.0 * 12 / 12)
    finer = pixel_loss(images, torch.ones(1, 2, 2, 3), torch.full((1, 1, 1, 1), 2.0), 8)
    assert finer.item() == pytest.approx(loss.item() / 4), "a latent of Stable Diffusion is 48 colour values"
