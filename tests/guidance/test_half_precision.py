"""Small gradients survive a UNet in float16; in float32 nothing changes."""

import pytest
import torch
from torch.nn import functional

from threestudio_redream.guidance.half_precision import FACTOR, GradientScale
from threestudio_redream.guidance.vsd import VSDGuidance


def learned(dtype, scaled):
    """The gradient of a parameter behind a product in ``dtype``, under a mean over a million values."""
    weight = torch.nn.Parameter(torch.ones(8))
    scale = GradientScale(dtype if scaled else torch.float32, [weight])
    given = torch.linspace(0.1, 1.0, 8).to(dtype)
    output = scale((given * weight.to(dtype)).float())
    target = (given * 0.99).float()
    (functional.mse_loss(output, target, reduction="sum") / 1e6).backward()
    return weight.grad


def test_half_precision_loses_small_gradients_without_it():
    exact = learned(torch.float64, scaled=False)
    assert not learned(torch.float16, scaled=False).any()
    found = learned(torch.float16, scaled=True)
    assert torch.allclose(found, exact, rtol=0.1)


def test_other_types_are_left_alone():
    assert GradientScale(torch.float32, []).factor == GradientScale(torch.bfloat16, []).factor == 1.0
    output = torch.ones(2)
    assert GradientScale(torch.float16, [])(output) is output, "nothing to do without a graph"
    assert FACTOR == 2**12


@pytest.mark.parametrize("camera", ["extrinsics", "none"])
def test_the_particles_lora_learns_the_same_in_half_precision(tiny_model, camera):
    gradients = []
    for dtype in ("float32", "float16"):
        guidance = VSDGuidance(
            {"pretrained_model_name_or_path": str(tiny_model), "weights_dtype": dtype, "camera_condition": camera}
        )
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in guidance.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
        latents = torch.randn(2, 4, 16, 16, generator=generator)
        asked = question(guidance, generator)
        guidance.lora_loss(latents, asked, torch.Generator().manual_seed(5)).backward()
        gradients.append(torch.cat([p.grad.float().flatten() for p in guidance.parameters()]))
    cosine = functional.cosine_similarity(*gradients, dim=0)
    assert cosine > 0.99
    assert gradients[1].norm() == pytest.approx(gradients[0].norm().item(), rel=0.05)


def question(guidance, generator):
    from threestudio_redream.guidance.conditioning import Condition
    from threestudio_redream.guidance.vsd import Question

    width = guidance.model.unet.config.cross_attention_dim
    plain = torch.randn(4, 8, width, generator=generator)
    camera = torch.randn(2, 16, generator=generator) if guidance.camera_embedding is not None else None
    return Question(
        torch.tensor([500, 700]), torch.randn(2, 4, 16, 16, generator=generator), Condition(plain), plain[:2], camera
    )
