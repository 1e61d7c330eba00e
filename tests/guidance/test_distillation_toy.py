"""Distillation where the answer is known: points in a plane, exact scores, the code of the package.

Two modes at distance D stand for two shapes; the right one has the smaller weight. What is true of images need not be
true here, but what fails here is wrong.
"""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler

from threestudio_redream.geometry.latent_prior import latent_prior_loss, point_residual
from threestudio_redream.guidance.latent_diffusion import LatentDiffusion
from threestudio_redream.guidance.redream import ReDreamGuidance
from threestudio_redream.runtime.rng import step_generator
from threestudio_redream.runtime.schedule import C

STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SPREAD, SHARES = 0.35, (0.85, 0.15)  # within a mode; the second mode is that of the reference
STEPS, RATE = 2500, 0.05


@pytest.fixture(autouse=True)
def _one_thread():
    """Thousands of steps on small tensors: waiting for other threads would take most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Plane(LatentDiffusion):
    """A "model" whose pictures ``[B, 1, 1, 2]`` are points of a plane, and its latents ``[B, 2, 1, 1]`` the same."""

    def __init__(self):
        self.alphas_cumprod = DDPMScheduler(**STABLE_DIFFUSION).alphas_cumprod

    def encode(self, images):
        return images.permute(0, 3, 1, 2)

    def resized(self, images, size=None):
        return images


class Scores(ReDreamGuidance):
    """The guidance of the package with exact scores of a mixture in place of a network."""

    def configure(self):
        self.model = Plane()
        self.set_num_train_timesteps(len(self.model.alphas_cumprod))
        self.camera_embedding, self.adapter_scale = None, 0.0
        self.register_buffer("delta_products", torch.zeros(2))
        self.particle_model, self.particle_switched, self.switched = self.model, object(), object()  # never one call
        self.modes = torch.zeros(2, 2)

    def noise_of_mixture(self, latents, question):
        alpha, sigma = self.model.alpha_sigma(question.steps)
        noisy = self.model.add_noise(latents, question.noise, question.steps).flatten(1)[:, None]
        variance = alpha.flatten(1) ** 2 * SPREAD**2 + sigma.flatten(1) ** 2
        away = noisy - alpha.flatten(1)[:, None] * self.modes
        first, second = (torch.tensor(SHARES).log() - away.square().sum(-1) / (2.0 * variance)).unbind(-1)
        near = torch.stack([torch.sigmoid(first - second), torch.sigmoid(second - first)], dim=-1)
        score = -(near[..., None] * away).sum(1) / variance
        return (-sigma.flatten(1) * score)[..., None, None]

    def target_noise(self, latents, question):
        return self.noise_of_mixture(latents, question)

    def particle_noise(self, latents, question):
        """One particle that its own model knows perfectly."""
        return question.noise

    def lora_loss(self, latents, *rest, **more):
        return latents.new_zeros(())


class Crowd(Scores):
    """All points together are the particles, and their model knows their distribution exactly."""

    def particle_noise(self, latents, question):
        cloud = latents[:, None].expand(-1, len(latents), -1, -1, -1)
        alpha, sigma = self.model.alpha_sigma(question.steps)
        return question.noise + point_residual(latents, question.noise, cloud, alpha, sigma, together=False)


def descend(guidance, points, reference, prior, *, steps=STEPS, rate=RATE, each=None):
    """Gradient steps on the package's losses; ``prior`` is the weight of each point's pull at a step."""
    count = len(points)
    places = torch.zeros(count)
    texts = SimpleNamespace(use_perp_neg=False, get_text_embeddings=lambda *_, **__: torch.zeros(2 * count, 1, 1))
    images = points.view(count, 1, 1, 2).clone()
    asset = reference.expand(count, 1, 1, 2)
    for step in range(steps):
        guidance.do_update_step(0, step)
        images.requires_grad_(True)
        said = guidance(
            images, texts, places, places, places, reference_rgb=asset, generator=step_generator(0, step, 4)
        )
        (pull,) = torch.autograd.grad(said["loss_vsd"] * count, images)
        weight = prior(step)
        if bool((weight != 0).any()):
            generator = step_generator(0, step, 4)
            times = guidance.sample_timesteps(count, "cpu", generator)
            loss = latent_prior_loss(guidance.model, images, asset[None], times, generator)
            pull = pull + weight.view(-1, 1, 1, 1) * torch.autograd.grad(loss * count, images)[0]
        images = images.detach() - rate * pull
        if each is not None:
            each(step, images.view(count, 2))
    return images.view(count, 2)


def toy(warm_ups, distance=6.0, points=150, delta=0):
    """Share of particles that end in the reference's mode, for each length of the prior's warm-up."""
    guidance = Scores(
        {"max_step_percent": [0.2 * STEPS - 1, 0.98, 0.5, int(0.2 * STEPS)], "delta_every": delta, "one_call": False}
    )
    guidance.modes = torch.tensor([[0.0, 0.0], [distance, 0.0]])
    generator = torch.Generator().manual_seed(0)
    start = torch.tensor([distance / 2.0, 0.0]) + torch.randn(points, 2, generator=generator)
    schedules = [[share * STEPS, 1.0, 0.0, int(2 * share * STEPS)] if share else 0.0 for share in warm_ups]
    ends = descend(
        guidance,
        start.repeat(len(warm_ups), 1),
        guidance.modes[1] + 0.2,  # slightly off the mode
        lambda step: torch.tensor([C(schedule, 0, step) for schedule in schedules]).repeat_interleave(points),
    )
    away = (ends[:, None] - guidance.modes).norm(dim=-1)
    return (away[:, 1] < away[:, 0]).float().view(len(warm_ups), points).mean(1).tolist()


def test_a_short_warm_up_is_forgotten_and_a_long_one_is_not():
    none, short, long = toy([0.0, 0.04, 0.1])
    assert none < 0.03
    assert 0.1 < short < 0.55
    assert long > 0.97


def test_the_delta_term_lets_a_short_warm_up_last():
    (both,) = toy([0.04], delta=3)
    assert both > 0.97


def test_particles_become_the_product_of_both_priors():
    """At one timestep a point prior of weight lambda is a Gaussian of variance sigma^2 / lambda around alpha z_ret."""
    time, count = 300, 128
    keys = {"min_step_percent": time / 1000, "max_step_percent": time / 1000, "delta_every": 0, "one_call": False}
    guidance = Crowd(keys)
    guidance.modes = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    reference = guidance.modes[1]
    alpha, sigma = (float(value) for value in guidance.model.alpha_sigma(torch.tensor([time])))
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(count, 2, generator=generator) + torch.tensor([1.0, 0.0])
    middle = {}
    for strength in (0.0, 0.25):
        seen = []

        def look(step, points, seen=seen):
            if step >= 150 and step % 5 == 0:
                seen.append(alpha * points + sigma * torch.randn(points.shape, generator=generator))

        prior = torch.full((count,), strength)
        descend(guidance, start, reference, lambda _, prior=prior: prior, steps=400, rate=1.0, each=look)
        x, variance = torch.linspace(-6.0, 8.0, 1401), alpha**2 * SPREAD**2 + sigma**2
        density = sum(s * torch.exp(-((x - alpha * m) ** 2) / (2 * variance)) for s, m in zip(SHARES, (0.0, 2.0)))
        density = density * torch.exp(-strength * (x - alpha * 2.0) ** 2 / (2 * sigma**2))
        edges, places = torch.linspace(-2.0, 4.0, 13), torch.cat(seen)[:, 0].contiguous()
        wanted = torch.bincount(torch.bucketize(x, edges), density, minlength=14) / density.sum()
        found = torch.bincount(torch.bucketize(places, edges), minlength=14) / len(places)
        assert float((found - wanted).abs().sum()) < 0.1
        middle[strength] = float(places.mean())
    assert middle[0.25] > middle[0.0] + 0.2
