from __future__ import annotations

from typing import Any

import pytest
import torch

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime import find
from threestudio_redream.runtime.materials.base import BaseMaterial
from threestudio_redream.runtime.materials.diffuse_with_point_light import DiffuseWithPointLightMaterial
from threestudio_redream.runtime.materials.no_material import NoMaterial

MLP = {"otype": "VanillaMLP", "n_neurons": 8, "n_hidden_layers": 1}
# Two points that see a light above them: one faces it, one looks away.
LIT: dict[str, Any] = {
    "features": torch.zeros(2, 3),  # sigmoid(0) = 0.5
    "positions": torch.zeros(2, 3),
    "light_positions": torch.tensor([[0.0, 0.0, 5.0]] * 2),
    "shading_normal": torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]),
    "viewdirs": torch.zeros(2, 3),
    "density": torch.ones(2, 1),
}


def test_registered() -> None:
    assert find("no-material") is NoMaterial
    assert find("diffuse-with-point-light-material") is DiffuseWithPointLightMaterial


def test_base_material() -> None:
    material = BaseMaterial({})
    assert (material.requires_normal, material.requires_tangent, material.export()) == (False, False, {})
    with pytest.raises(NotImplementedError):
        material(features=torch.zeros(1, 3))


# --------------------------------------------------------------------------------------- no-material
def test_features_are_colors() -> None:
    material = NoMaterial({"color_activation": "none"})
    features = torch.rand(2, 5, 3)
    assert torch.equal(material(features=features, viewdirs=None, elevation=0), features)
    assert NoMaterial({})(features=torch.zeros(1, 3)).tolist() == [[0.5] * 3]
    assert not material.requires_normal
    assert NoMaterial({"requires_normal": True}).requires_normal


def test_network_from_features_to_color() -> None:
    material = NoMaterial({"input_feature_dims": 6, "mlp_network_config": MLP, "n_output_dims": 4})
    features = torch.randn(2, 5, 6)
    color = material(features)
    assert color.shape == (2, 5, 4)
    torch.testing.assert_close(color[1], torch.sigmoid(material.network(features[1])))
    albedo = material.export(features)["albedo"]
    torch.testing.assert_close(albedo, color[..., :3])


def test_exported_albedo_is_in_range() -> None:
    albedo = NoMaterial({"color_activation": "none"}).export(features=torch.tensor([[-1.0, 0.5, 2.0]]), points=None)
    assert albedo["albedo"].tolist() == [[0.0, 0.5, 1.0]]


def test_no_material_errors() -> None:
    with pytest.raises(ConfigError, match="3 feature channels") as caught:
        NoMaterial({})(torch.zeros(1, 4))
    assert caught.value.received == 4
    assert "n_feature_dims" in caught.value.fix
    with pytest.raises(ConfigError, match="6 feature channels"):
        NoMaterial({"input_feature_dims": 6, "mlp_network_config": MLP})(torch.zeros(1, 3))
    with pytest.raises(ConfigError, match="3 colour channels") as caught:
        NoMaterial({"n_output_dims": 1}).export(torch.zeros(1, 1))
    assert caught.value.received == 1
    assert "n_output_dims" in caught.value.fix


# ---------------------------------------------------------------------------- point light and diffuse
def test_shading_numbers() -> None:
    material = DiffuseWithPointLightMaterial({})
    material.eval()
    assert material.requires_normal
    expected = {"albedo": [0.5, 0.5], "textureless": [1.0, 0.1], "diffuse": [0.5, 0.05]}
    for shading, (facing, away) in expected.items():
        color = material(**LIT, shading=shading)
        torch.testing.assert_close(color, torch.tensor([[facing] * 3, [away] * 3]))
    torch.testing.assert_close(material(**LIT), torch.tensor([[0.5] * 3, [0.05] * 3]))
    torch.testing.assert_close(material(**LIT, ambient_ratio=0.4), torch.tensor([[0.5] * 3, [0.2] * 3]))


def test_light_colors_are_configurable_buffers() -> None:
    material = DiffuseWithPointLightMaterial(
        {"ambient_light_color": [0.2, 0.0, 0.0], "diffuse_light_color": [0.0, 1.0, 0.0]}
    )
    color = material(**LIT, shading="textureless")
    torch.testing.assert_close(color, torch.tensor([[0.2, 1.0, 0.0], [0.2, 0.0, 0.0]]))
    assert set(material.state_dict()) == {"ambient_light_color", "diffuse_light_color"}


def test_ambient_only_steps() -> None:
    material = DiffuseWithPointLightMaterial({"ambient_only_steps": 10, "diffuse_prob": 1.0, "textureless_prob": 0.0})
    for step, facing in [(0, 0.5), (9, 0.5), (10, 0.05), (9, 0.5)]:
        material.do_update_step(0, step)
        for mode in (True, False):
            material.train(mode)
            assert material(**LIT)[1, 0].item() == pytest.approx(facing)
    test_time = DiffuseWithPointLightMaterial({"ambient_only_on_test": True}).eval()
    assert test_time(**LIT)[1, 0].item() == 0.5


def test_training_draws_shadings_with_their_probabilities() -> None:
    material = DiffuseWithPointLightMaterial({"diffuse_prob": 0.6, "textureless_prob": 0.25}).train()
    torch.manual_seed(3)
    seen = [round(material(**LIT)[1, 0].item(), 3) for _ in range(2000)]
    share = {value: seen.count(value) / 2000 for value in (0.5, 0.1, 0.05)}
    assert sum(share.values()) == 1.0
    assert share[0.5] == pytest.approx(0.4, abs=0.04)  # albedo
    assert share[0.1] == pytest.approx(0.15, abs=0.04)  # textureless
    assert share[0.05] == pytest.approx(0.45, abs=0.04)  # diffuse
    torch.manual_seed(3)
    assert [round(material(**LIT)[1, 0].item(), 3) for _ in range(50)] == seen[:50]


def test_soft_shading_draws_the_light() -> None:
    material = DiffuseWithPointLightMaterial({"soft_shading": True}).train()
    draws = torch.stack([material(**LIT, shading="textureless")[:, 0] for _ in range(20)])
    torch.testing.assert_close(draws[:, 0], torch.ones(20))  # diffuse + ambient = 1 where the light falls straight
    assert draws[:, 1].unique().numel() == 20
    assert ((draws[:, 1] >= 0) & (draws[:, 1] <= 1)).all()


def test_textureless_keeps_a_zero_gradient_on_features() -> None:
    features = torch.randn(2, 3, requires_grad=True)
    DiffuseWithPointLightMaterial({})(**{**LIT, "features": features}, shading="textureless").sum().backward()
    assert features.grad is not None
    assert (features.grad == 0).all()


def test_unknown_shading() -> None:
    with pytest.raises(ConfigError, match="shading") as caught:
        DiffuseWithPointLightMaterial({})(**LIT, shading="toon")
    assert caught.value.received == "toon"
    assert "textureless" in caught.value.fix


def test_diffuse_exports_albedo_without_light() -> None:
    albedo = DiffuseWithPointLightMaterial({}).export(features=torch.zeros(4, 3), points=None)["albedo"]
    torch.testing.assert_close(albedo, torch.full((4, 3), 0.5))
