"""Sharpness, its controls, crops, grounds and colour leak, on pictures whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from threestudio_redream.errors import ConfigError
from threestudio_redream.evaluation.appearance import (
    blurred,
    colour_distance,
    cropped,
    flattened,
    on_ground,
    sharpness,
)


def noise(count: int = 2, side: int = 24) -> torch.Tensor:
    return torch.rand(count, side, side, 3, generator=torch.Generator().manual_seed(0))


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    turn = noise()
    wanted = []
    for picture in turn.double().numpy():
        luma = picture @ np.array([0.299, 0.587, 0.114])
        wanted.append(ndimage.laplace(luma)[1:-1, 1:-1].var())
    assert sharpness(turn) == pytest.approx(np.mean(wanted), rel=1e-4)
    assert sharpness(torch.full((1, 8, 8, 3), 0.4)) == pytest.approx(0.0, abs=1e-12)
    assert sharpness(blurred(turn)) < 0.01 * sharpness(turn)


def test_sharpness_within_masks_leaves_the_outline_out() -> None:
    turn = torch.full((2, 16, 16, 3), 0.8)
    turn[:, 4:12, 4:12] = 0.2  # a plain square on another ground
    masks = turn[..., 0] < 0.5
    assert sharpness(turn) > 0.01
    assert sharpness(turn, masks) == pytest.approx(0.0, abs=1e-10)
    turn[0, 6:10, 6:10] = 0.9
    assert sharpness(turn, masks) == pytest.approx(2 * 0.5 * sharpness(turn[:1], masks[:1]) / 2)
    assert sharpness(turn, torch.zeros_like(masks)) == 0.0


def test_blur_is_a_gaussian() -> None:
    turn = noise()
    wanted = ndimage.gaussian_filter(turn.double().numpy(), (0, 1.5, 1.5, 0), mode="mirror", radius=(0, 4, 4, 0))
    found = blurred(turn, 1.5)
    radius = round(3 * 1.5)
    assert radius == 4
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


def test_a_flat_object_has_one_colour_and_its_outline() -> None:
    turn, masks = noise(), torch.zeros(2, 24, 24, dtype=torch.bool)
    masks[:, 5:15, 6:20] = True
    flat = flattened(turn, masks)
    torch.testing.assert_close(flat[masks], turn[masks].mean(0).expand(int(masks.sum()), 3))
    assert torch.equal(flat[~masks], turn[~masks])
    with pytest.raises(ConfigError, match="No view shows"):
        flattened(turn, masks & False)


def test_another_ground() -> None:
    opacity = torch.tensor([[[0.0, 0.5, 1.0]]])
    colour = torch.tensor([0.2, 0.4, 0.6])
    made = opacity[..., None] * colour + (1.0 - opacity[..., None]) * 0.6
    torch.testing.assert_close(on_ground(made, opacity, 0.6), opacity[..., None] * colour + 1.0 - opacity[..., None])
    torch.testing.assert_close(on_ground(made, opacity, 0.6, 0.6), made)


def test_the_crop_holds_the_object_in_all_views() -> None:
    turn, masks = noise(2, 20), torch.zeros(2, 20, 20, dtype=torch.bool)
    masks[0, 3:7, 10:12] = True
    masks[1, 5:9, 8:11] = True
    window = cropped(turn, masks)
    assert torch.equal(window, turn[:, 3:9, 7:13])
    masks[0, :, 19] = True  # as tall as the picture
    assert torch.equal(cropped(turn, masks), turn)
    masks[:] = False
    masks[0, 0:2, 0:9] = True  # a wide one at the border
    assert torch.equal(cropped(turn, masks), turn[:, 0:9, 0:9])
    with pytest.raises(ConfigError, match="No view shows"):
        cropped(turn, masks & False)


def test_colour_distance() -> None:
    red, blue = torch.zeros(1, 4, 4, 3), torch.zeros(1, 4, 4, 3)
    red[..., 0], blue[..., 2] = 1.0, 1.0
    whole = torch.ones(1, 4, 4, dtype=torch.bool)
    assert colour_distance(red, whole, red, whole) == 0.0
    assert colour_distance(red, whole, blue, whole) == 1.0
    mixed = red.clone()
    mixed[:, :1] = blue[:, :1]
    assert colour_distance(red, whole, mixed, whole) == pytest.approx(0.25)
    ground = whole.clone()
    ground[:, :1] = False
    assert colour_distance(red, whole, mixed, ground) == 0.0
    with pytest.raises(ConfigError, match="No view shows"):
        colour_distance(red, whole & False, blue, whole)
