"""The prior's strength as a share of the guidance's gradient."""

import pytest
import torch

from threestudio_redream.errors import ConfigError
from threestudio_redream.geometry.prior_match import MatchConfig, image_gradient_norm, matched_factor
from threestudio_redream.runtime.schedule import C


def scene():
    """Images of a renderer that depend on one another, and the parameters behind them."""
    generator = torch.Generator().manual_seed(0)
    parameters = torch.randn(2, 4, 4, 4, generator=generator, requires_grad=True)
    opacity = parameters[..., 3:].sigmoid()
    out = {"opacity": opacity, "comp_rgb": parameters[..., :3].sigmoid() * 0.5 + 0.6 * (1.0 - opacity)}
    return parameters, out, torch.rand(2, 4, 4, 3, generator=generator)


def norm_at_the_images(loss_of):
    """The norm with images that are leaves: colour in front of the ground, and opacity."""
    _, out, _ = scene()
    opacity = out["opacity"].detach().requires_grad_(True)
    front = (out["comp_rgb"] - 0.6 * (1.0 - out["opacity"])).detach().requires_grad_(True)
    loss_of(front + 0.6 * (1.0 - opacity), opacity).backward()
    return float((front.grad.square().sum() + opacity.grad.square().sum()).sqrt())


def test_the_norm_is_that_of_the_images_not_of_the_parameters():
    parameters, out, target = scene()

    def loss_of(rgb, opacity):
        return (rgb - target).square().mean() + 0.1 * opacity.square().mean()

    found = image_gradient_norm(loss_of(out["comp_rgb"], out["opacity"]), out)
    assert float(found) == pytest.approx(norm_at_the_images(loss_of), rel=1e-5)
    assert not found.requires_grad
    assert parameters.grad is None


@pytest.mark.parametrize("rho", [0.1, 1.0, 10.0])
def test_the_matched_prior_is_rho_times_as_strong_as_the_guidance(rho):
    _, out, target = scene()
    guidance = 37.0 * (out["comp_rgb"] - 0.2).square().sum()
    prior = 1e-3 * (out["comp_rgb"] - target).square().mean() + 2e-3 * out["opacity"].mean()
    factor = matched_factor(prior, guidance, out, rho)
    sizes = [float(image_gradient_norm(loss, out)) for loss in (factor * prior, guidance)]
    assert sizes[0] == pytest.approx(rho * sizes[1], rel=1e-5)
    (factor * prior + guidance).backward()  # both graphs are still there


def test_nothing_is_matched_where_there_is_nothing():
    _, out, target = scene()
    guidance = (out["comp_rgb"] - target).square().sum()
    assert float(matched_factor(guidance, guidance, out, 0.0)) == 0.0
    assert float(matched_factor(out["opacity"].sum() * 0.0, guidance, out, 1.0)) == 0.0
    assert float(matched_factor(torch.zeros(()), guidance, out, 1.0)) == 0.0
    elsewhere = torch.ones((), requires_grad=True) * 3.0  # such as the loss of a LoRA on constant latents
    assert float(image_gradient_norm(elsewhere, out)) == 0.0


def test_the_published_and_the_matched_schedule_end_at_exactly_zero():
    for schedule in ([150, 1000.0, 0.0, 300], [0, 10.0, 0.0, 300]):
        assert C(schedule, 0, 299) > 0.0
        assert [C(schedule, 0, step) for step in (300, 301, 10**6)] == [0.0, 0.0, 0.0]


def test_a_bad_schedule_is_found_at_once():
    with pytest.raises(ConfigError, match="schedule"):
        MatchConfig([1.0, 2.0])
    MatchConfig([0, 10.0, 0.0, 300])
