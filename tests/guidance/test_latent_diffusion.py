"""The frozen model as score distillation sees it."""

import pytest
import torch
from diffusers import DDIMScheduler

from threestudio_redream.errors import ConfigError
from threestudio_redream.guidance.latent_diffusion import LatentDiffusion


@pytest.fixture(scope="module", params=["v", "epsilon"])
def model(request, tiny_model, tiny_epsilon_model):
    return LatentDiffusion.load(str(tiny_model if request.param == "v" else tiny_epsilon_model))


def noisy_latents(count=3):
    generator = torch.Generator().manual_seed(3)
    clean, noise = (torch.randn(count, 4, 16, 16, generator=generator) for _ in range(2))
    return clean, noise, torch.tensor([20, 500, 980])[:count]


def test_sizes(model):
    assert model.image_size() == 64
    assert model.downsampling == 4
    images = torch.rand(2, 64, 64, 3)
    latents = model.encode(images)
    assert latents.shape == (2, 4, 16, 16)
    decoded = model.decode(latents)
    assert decoded.shape == (2, 64, 64, 3)
    assert float(decoded.min()) >= 0.0
    assert float(decoded.max()) <= 1.0
    assert model.resized(torch.rand(1, 32, 32, 3)).shape == (1, 64, 64, 3)
    assert model.resized(images) is images


def test_encoding_is_the_scaled_posterior_mean_and_lets_gradients_through(model):
    images = torch.rand(1, 64, 64, 3, requires_grad=True)
    latents = model.encode(images)
    expected = model.vae.encode(images.permute(0, 3, 1, 2) * 2 - 1).latent_dist.mean * 0.7
    torch.testing.assert_close(latents, expected)
    latents.sum().backward()
    assert float(images.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in model.vae.parameters())


def test_noise_and_step_follow_diffusers(model, tiny_model):
    clean, noise, steps = noisy_latents()
    scheduler = DDIMScheduler.from_pretrained(tiny_model, subfolder="scheduler")
    torch.testing.assert_close(model.add_noise(clean, noise, steps), scheduler.add_noise(clean, noise, steps))


def test_a_perfect_prediction_is_read_back(model):
    clean, noise, steps = noisy_latents()
    noisy = model.add_noise(clean, noise, steps)
    alpha, sigma = model.alpha_sigma(steps)
    output = alpha * noise - sigma * clean if model.prediction_type == "v_prediction" else noise
    guess = model.read(output, noisy, steps)
    torch.testing.assert_close(guess.noise, noise, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(guess.clean, clean, rtol=1e-3, atol=1e-3)


def test_guess_agrees_with_diffusers_own_step(model, tiny_model, tiny_epsilon_model):
    clean, _, _ = noisy_latents(1)
    folder = tiny_model if model.prediction_type == "v_prediction" else tiny_epsilon_model
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler", clip_sample=False)
    scheduler.set_timesteps(1000)
    output = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    step = scheduler.step(output, 500, clean).pred_original_sample
    torch.testing.assert_close(model.read(output, clean, torch.tensor([500])).clean, step, rtol=1e-4, atol=1e-4)


def test_guidance_is_linear_between_the_two_predictions(model):
    clean, noise, steps = noisy_latents()
    noisy = model.add_noise(clean, noise, steps)
    context = torch.randn(6, 24, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        conditional = model.predict(noisy, steps, context[:3])
        unconditional = model.predict(noisy, steps, context[3:])
    for scale, expected in ((0.0, unconditional), (1.0, conditional), (3.0, 3 * conditional - 2 * unconditional)):
        guess = model.guided(noisy, steps, context, scale)
        torch.testing.assert_close(guess.noise, model.read(expected, noisy, steps).noise, rtol=1e-4, atol=1e-4)


def test_unknown_prediction_type_and_dtype(tiny_model):
    with pytest.raises(ConfigError, match="dtype") as error:
        LatentDiffusion.load(str(tiny_model), dtype="int8")
    assert error.value.received == "int8"
    model = LatentDiffusion.load(str(tiny_model))
    scheduler = DDIMScheduler(prediction_type="sample")
    with pytest.raises(ConfigError, match="prediction type") as error:
        LatentDiffusion(model.vae, model.unet, scheduler)
    assert error.value.received == "sample"


def test_bfloat16_stays_close(tiny_model):
    clean, _, steps = noisy_latents()
    context = torch.randn(6, 24, 16, generator=torch.Generator().manual_seed(1))
    exact = LatentDiffusion.load(str(tiny_model)).guided(clean, steps, context, 1.0)
    rough = LatentDiffusion.load(str(tiny_model), dtype="bfloat16").guided(clean, steps, context, 1.0)
    assert rough.noise.dtype == torch.float32
    assert float((exact.noise - rough.noise).abs().mean()) < 0.02
