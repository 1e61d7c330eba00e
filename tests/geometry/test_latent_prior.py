"""Form B of the prior: the score of a point, and of several."""

import pytest
import torch

from threestudio_redream.geometry.latent_prior import latent_prior_loss, point_residual, responsibilities
from threestudio_redream.guidance.latent_diffusion import LatentDiffusion

STEPS = torch.tensor([50, 400, 900])


@pytest.fixture(scope="module")
def model(tiny_model):
    return LatentDiffusion.load(str(tiny_model))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_sds_residual_of_a_point_is_a_pull_towards_it(model):
    z, noise, point = draw(3, 4, 8, 8, seed=1), draw(3, 4, 8, 8, seed=2), draw(3, 4, 8, 8, seed=3)
    bar = model.alphas_cumprod[STEPS].double().view(3, 1, 1, 1)
    alpha, sigma = bar.sqrt(), (1.0 - bar).sqrt()
    # The noise that a model of a single point predicts, from the noisy latents alone.
    predicted = (alpha * z + sigma * noise - alpha * point) / sigma
    ours = point_residual(z, noise, point[None], alpha, sigma)
    torch.testing.assert_close(ours, predicted - noise)
    torch.testing.assert_close(ours, alpha / sigma * (z - point))
    assert not bool(point_residual(point, noise, point[None], alpha, sigma).any())


def test_the_residual_of_several_points_is_the_score_of_their_mixture():
    """Against autograd on the log density of the mixture, in two dimensions where it is not one-hot."""
    points, x, noise = draw(3, 5, 2, seed=1), draw(5, 2, seed=2), draw(5, 2, seed=3)
    alpha, sigma = torch.tensor(0.8, dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64)
    noisy = (alpha * x + sigma * noise).requires_grad_(True)
    density = torch.stack([torch.exp(-((noisy - alpha * p) ** 2).sum(-1) / (2 * sigma**2)) for p in points]).sum(0)
    (score,) = torch.autograd.grad(density.log().sum(), noisy)
    ours = point_residual(x, noise, points, alpha.expand(5, 1), sigma.expand(5, 1), together=False)
    torch.testing.assert_close(ours, -sigma * score - noise)


def test_responsibilities_sum_to_one_and_become_one_hot():
    points = draw(3, 2, 4, 16, 16, seed=1)
    clean, noise = points[1], draw(2, 4, 16, 16, seed=2)
    for share, hard in ((0.999999, False), (0.5, True), (0.05, True)):
        sigma = torch.full((2, 1, 1, 1), share, dtype=torch.float64)
        alpha = (1.0 - sigma**2).sqrt()
        r = responsibilities(alpha * clean + sigma * noise, points, alpha, sigma)
        assert r.shape == (3, 2)
        torch.testing.assert_close(r.sum(0), torch.ones(2, dtype=torch.float64))
        assert bool((r[1] > 0.999).all()) == hard
    far = responsibilities(clean, points, torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    torch.testing.assert_close(far, torch.full((3, 2), 1 / 3, dtype=torch.float64))  # pure noise says nothing


def test_views_of_one_object_share_their_answer():
    first, second = torch.zeros(2, 3), torch.ones(2, 3)
    seen = torch.tensor([[0.0, 0.1, 0.0], [0.8, 0.8, 0.7]])  # the second view alone would choose the other asset
    alpha, sigma = torch.ones(2, 1), torch.full((2, 1), 0.3)
    alone = responsibilities(seen, torch.stack([first, second]), alpha, sigma, together=False)
    assert alone.argmax(0).tolist() == [0, 1]
    shared = responsibilities(seen, torch.stack([first, second]), alpha, sigma)
    assert torch.equal(shared[:, 0], shared[:, 1])
    torch.testing.assert_close(shared[:, 0], (alone.log().sum(1)).softmax(0))


def test_the_loss_pulls_by_alpha_sigma_through_the_encoder(model):
    images, asset = torch.rand(2, 3, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    images.requires_grad_(True)
    latent_prior_loss(model, images, asset[None], STEPS, torch.Generator().manual_seed(1)).backward()
    alpha, sigma = model.alpha_sigma(STEPS)
    again = images.detach().requires_grad_(True)
    z = model.encode(again)
    (0.5 * alpha * sigma * (z - model.encode(asset)).square()).sum().div(3).backward()
    torch.testing.assert_close(images.grad, again.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gradient", ["encoder", "decoder"])
def test_the_asset_itself_is_a_fixed_point(model, gradient):
    asset = torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    other = torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    for images, moves in ((asset, False), (other, True)):
        images = images.clone().requires_grad_(True)
        generator = torch.Generator().manual_seed(1)
        latent_prior_loss(model, images, asset[None], STEPS, generator, gradient=gradient).backward()
        assert bool((images.grad.abs() > 1e-7).any()) == moves


def test_with_several_assets_the_nearest_one_pulls(model):
    assets = torch.rand(2, 3, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    found = []
    for references in (assets, assets[1:]):
        images = (assets[1] * 0.98).requires_grad_(True)
        latent_prior_loss(model, images, references, STEPS[:1].repeat(3), torch.Generator().manual_seed(1)).backward()
        found.append(images.grad)
    torch.testing.assert_close(found[0], found[1])
