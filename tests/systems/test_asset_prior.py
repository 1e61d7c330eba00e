"""The pull towards the retrieved asset, against its formula."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from threestudio_redream.assets import normalise, sample_asset
from threestudio_redream.assets.rasteriser import render_asset
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.errors import ConfigError
from threestudio_redream.geometry.asset_prior import AssetViews, ReferenceView, prior_losses


def test_an_asset_is_seen_by_the_cameras_of_the_batch_on_its_ground():
    asset = normalise(sample_asset())
    c2w = orbit_c2w([0.0, 90.0], [10.0, 20.0], [1.5, 1.4])
    ground = torch.tensor([[0.2, 0.4, 0.6], [0.7, 0.7, 0.7]]).view(2, 1, 1, 3)
    fovy = torch.deg2rad(torch.tensor([40.0, 35.0]))
    view = AssetViews([asset], supersample=2)(5, torch.from_numpy(c2w), fovy, 24, 32, ground)
    renders = render_asset(asset, c2w, [40.0, 35.0], 24, 32, supersample=2)
    np.testing.assert_allclose(view.mask, renders.mask, atol=1e-5)
    np.testing.assert_allclose(view.rgb, renders.over(ground.numpy()), atol=1e-5)
    np.testing.assert_allclose(view.normal, renders.normal, atol=1e-5)
    with pytest.raises(ConfigError, match="no asset"):
        AssetViews([])


def test_losses_are_mean_squares_weighed_by_trust():
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.rand(shape, generator=generator)  # noqa: E731
    rgb, opacity = draw(2, 4, 4, 3).requires_grad_(True), draw(2, 4, 4, 1).requires_grad_(True)
    reference = ReferenceView(draw(2, 4, 4, 3), draw(2, 4, 4, 1), torch.zeros(2, 4, 4, 3))
    terms = prior_losses({"comp_rgb": rgb, "opacity": opacity}, reference, trust=0.5)
    assert set(terms) == {"prior_rgb", "prior_mask"}
    sum(terms.values()).backward()
    torch.testing.assert_close(rgb.grad, 0.5 * 2.0 * (rgb.detach() - reference.rgb) / rgb.numel())
    torch.testing.assert_close(opacity.grad, 0.5 * 2.0 * (opacity.detach() - reference.mask) / opacity.numel())
    same = prior_losses({"comp_rgb": reference.rgb, "opacity": reference.mask}, reference)
    assert float(sum(same.values())) == 0.0


def test_normals_count_where_both_have_some_and_colour_does_not():
    up = torch.tensor([0.0, 0.0, 1.0]).expand(1, 2, 2, 3)
    reference = ReferenceView(torch.zeros(1, 2, 2, 3), torch.tensor([[[[1.0], [1.0]], [[0.0], [0.5]]]]), up)
    opacity = torch.tensor([[[[1.0], [0.0]], [[1.0], [1.0]]]])
    out = {"comp_rgb": torch.rand(1, 2, 2, 3), "opacity": opacity}
    turned = torch.tensor([1.0, 0.0, 0.0]).expand(1, 2, 2, 3)
    for normal, expected in ((up, 0.0), (turned, 1.0), (-up, 2.0)):
        terms = prior_losses({**out, "comp_normal": (normal + 1.0) / 2.0}, reference)
        assert float(terms["prior_normal"]) == pytest.approx(expected, abs=1e-6)


def test_normals_are_compared_as_the_renderer_gives_them():
    """Scaled by the opacity: a pixel that is half covered by the right normal is right."""
    normal = functional.normalize(torch.tensor([0.3, -0.5, 0.8]), dim=0).expand(1, 3, 3, 3)
    across = functional.normalize(torch.linalg.cross(normal, normal.flip(-1)), dim=-1)
    opacity = torch.linspace(0.05, 1.0, 9).view(1, 3, 3, 1).requires_grad_(True)
    reference = ReferenceView(torch.zeros(1, 3, 3, 3), torch.ones(1, 3, 3, 1), normal)
    for wanted, seen in ((0.0, normal), (1.0, across)):
        out = {"comp_rgb": torch.zeros(1, 3, 3, 3), "opacity": opacity, "comp_normal": (seen + 1.0) * 0.5 * opacity}
        loss = prior_losses(out, reference)["prior_normal"]
        assert loss.item() == pytest.approx(wanted, abs=1e-5)
        (gradient,) = torch.autograd.grad(loss, opacity)
        assert float(gradient.abs().max()) < 1e-5  # it turns the surface and does not hide it
