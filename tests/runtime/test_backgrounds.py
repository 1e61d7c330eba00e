from __future__ import annotations

from typing import Any

import pytest
import torch

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime import find
from threestudio_redream.runtime.backgrounds.base import BaseBackground
from threestudio_redream.runtime.backgrounds.neural_environment_map import NeuralEnvironmentMapBackground
from threestudio_redream.runtime.backgrounds.solid_color import SolidColorBackground

DIRS = torch.nn.functional.normalize(torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(0)), dim=-1)


def test_registered() -> None:
    assert find("solid-color-background") is SolidColorBackground
    assert find("neural-environment-map-background") is NeuralEnvironmentMapBackground
    with pytest.raises(NotImplementedError):
        BaseBackground({})(DIRS)


def test_solid_color() -> None:
    color = SolidColorBackground({"color": [0.1, 0.2, 0.3]})(DIRS)
    assert color.shape == (2, 4, 5, 3)
    torch.testing.assert_close(color[1, 2, 3], torch.tensor([0.1, 0.2, 0.3]))
    latent = SolidColorBackground({"color": [0.0], "n_output_dims": 4})(DIRS)
    assert latent.shape == (2, 4, 5, 4)


def test_solid_color_learns_if_asked() -> None:
    fixed, learned = SolidColorBackground({}), SolidColorBackground({"learned": True})
    assert not list(fixed.parameters())
    assert set(fixed.state_dict()) == set(learned.state_dict()) == {"env_color"}
    learned(DIRS).sum().backward()
    assert learned.env_color.grad.tolist() == [40.0] * 3


def test_solid_color_with_wrong_channels() -> None:
    with pytest.raises(ConfigError, match="1 or 3 numbers") as caught:
        SolidColorBackground({"color": [0.0, 1.0]})
    assert caught.value.received == (0.0, 1.0)
    assert "n_output_dims" in caught.value.fix


@pytest.mark.parametrize("kind", [SolidColorBackground, NeuralEnvironmentMapBackground])
def test_random_augmentation(kind: Any) -> None:
    background = kind({"random_aug": True, "random_aug_prob": 0.3})
    plain = background.eval()(DIRS)
    background.train()
    torch.manual_seed(0)
    draws = [background(DIRS) for _ in range(200)]
    replaced = [draw for draw in draws if not torch.allclose(draw, plain)]
    assert len(replaced) / 200 == pytest.approx(0.3, abs=0.1)
    for draw in replaced:
        assert draw.shape == plain.shape
        assert (draw == draw[:, :1, :1]).all()  # one colour per image
        assert not torch.equal(draw[0, 0, 0], draw[1, 0, 0])
        assert ((draw >= 0) & (draw <= 1)).all()
    torch.manual_seed(0)
    assert all(torch.equal(background(DIRS), draw) for draw in draws[:20])
    never = kind({"random_aug": True, "random_aug_prob": 0.0}).train()
    never.load_state_dict(background.state_dict())
    torch.testing.assert_close(never(DIRS), plain)


def test_replaced_colors_keep_a_zero_gradient() -> None:
    background = SolidColorBackground({"learned": True, "random_aug": True, "random_aug_prob": 1.0}).train()
    background(DIRS).sum().backward()
    assert background.env_color.grad.tolist() == [0.0] * 3


def test_environment_map_depends_on_direction_only() -> None:
    background = NeuralEnvironmentMapBackground({"n_output_dims": 4})
    color = background(DIRS)
    assert color.shape == (2, 4, 5, 4)
    assert ((color > 0) & (color < 1)).all()
    assert color.std(dim=(0, 1, 2)).min() > 1e-4
    torch.testing.assert_close(background(DIRS * 7.0), color)  # rays_d_normalize: false
    color.sum().backward()
    assert all(parameter.grad is not None for parameter in background.parameters())


def test_environment_map_in_evaluation() -> None:
    background = NeuralEnvironmentMapBackground({"eval_color": [1.0, 0.5, 0.0]})
    torch.testing.assert_close(background.eval()(DIRS)[0, 0, 0], torch.tensor([1.0, 0.5, 0.0]))
    assert background.train()(DIRS).requires_grad
