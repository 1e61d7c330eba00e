"""The LoRA attention that VSD extensions take from diffusers, where diffusers' own no longer works."""

import importlib

import pytest
import torch

from threestudio_redream.runtime.stand_in import diffusers_names
from threestudio_redream.runtime.stand_in.lora_attention import LoRAAttnProcessor, LowRank


@pytest.fixture
def restored():
    diffusers_names.restore_names()
    yield importlib.import_module(diffusers_names.MODULE)
    diffusers_names.undo()


def with_lora(unet):
    """As upstream's VSD puts it in: one processor for every attention, sizes by the block's name."""
    widths = unet.config.block_out_channels
    processors = {}
    for name in unet.attn_processors:
        context = None if name.endswith("attn1.processor") else unet.config.cross_attention_dim
        if name.startswith("mid_block"):
            width = widths[-1]
        elif name.startswith("up_blocks"):
            width = widths[::-1][int(name.split(".")[1])]
        else:
            width = widths[int(name.split(".")[1])]
        processors[name] = LoRAAttnProcessor(hidden_size=width, cross_attention_dim=context)
    unet.set_attn_processor(dict(processors))
    return list(processors.values())


def test_additions_begin_at_zero_count_by_scale_and_are_switched_off(tiny_epsilon_model):
    from diffusers import UNet2DConditionModel
    from diffusers.loaders import AttnProcsLayers

    unet = UNet2DConditionModel.from_pretrained(tiny_epsilon_model, subfolder="unet").requires_grad_(False)
    noisy, step, text = torch.randn(2, 4, 8, 8), torch.tensor([5, 700]), torch.randn(2, 7, 16)
    with torch.no_grad():
        before = unet(noisy, step, text).sample
    processors = with_lora(unet)
    torch.testing.assert_close(unet(noisy, step, text).sample, before, atol=1e-5, rtol=1e-4)
    layers = AttnProcsLayers(unet.attn_processors)
    assert len(list(layers.parameters())) == 8 * len(processors)
    unet(noisy, step, text).sample.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layers.parameters())
    for processor in processors:
        torch.nn.init.normal_(processor.to_v_lora.up.weight, std=0.5)
    with torch.no_grad():
        full = unet(noisy, step, text).sample
        off = unet(noisy, step, text, cross_attention_kwargs={"scale": 0.0}).sample
        half = unet(noisy, step, text, cross_attention_kwargs={"scale": 0.5}).sample
        again = unet(noisy, step, text).sample
    assert (full - before).abs().max() > 0.01
    torch.testing.assert_close(off, before, atol=1e-5, rtol=1e-4)
    assert 0.0 < (half - before).abs().mean() < (full - before).abs().mean()
    assert torch.equal(again, full)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_that_of_diffusers(masked):
    from diffusers.models.attention_processor import Attention, AttnProcessor

    attention = Attention(
        query_dim=16, cross_attention_dim=8, heads=4, dim_head=4, norm_num_groups=4, residual_connection=True
    ).eval()
    picture, text = torch.randn(2, 16, 3, 5), torch.randn(2, 6, 8)
    mask = torch.zeros(2, 1, 6) if masked else None
    if mask is not None:
        mask[..., 4:] = -10000.0
    attention.set_processor(AttnProcessor())
    expected = attention(picture, text, attention_mask=mask)
    attention.set_processor(LoRAAttnProcessor(16, 8))
    torch.testing.assert_close(attention(picture, text, attention_mask=mask), expected, atol=1e-5, rtol=1e-4)


def test_low_rank_keeps_its_type_and_counts_alpha():
    layer = LowRank(4, 6, rank=2, network_alpha=1.0)
    torch.nn.init.ones_(layer.up.weight)
    x = torch.randn(3, 4)
    torch.testing.assert_close(layer(x), 0.5 * layer.up(layer.down(x)))
    assert layer(x.bfloat16()).dtype == torch.bfloat16


def test_diffusers_name_is_ours_and_given_back(restored):
    before = diffusers_names._taken.copy()
    assert restored.LoRAAttnProcessor is LoRAAttnProcessor
    diffusers_names.restore_names()
    assert diffusers_names._taken == before, "repeating the call does nothing"
    diffusers_names.undo()
    assert restored.LoRAAttnProcessor is not LoRAAttnProcessor


def test_the_name_is_put_in_when_diffusers_is_imported_later(tmp_path):
    import subprocess
    import sys

    script = (
        "import sys\nfrom threestudio_redream.runtime import stand_in\nstand_in.install()\n"
        "assert 'diffusers' not in sys.modules\n"
        "from diffusers.models.attention_processor import LoRAAttnProcessor\n"
        "LoRAAttnProcessor(hidden_size=8, cross_attention_dim=None)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_diffusers_whose_class_works_is_left_alone(monkeypatch):
    import types

    class Theirs:
        def __init__(self, hidden_size, cross_attention_dim=None, rank=4):
            pass

    module = types.ModuleType("attention")
    module.LoRAAttnProcessor = module.LoRAAttnProcessor2_0 = Theirs
    monkeypatch.setattr(diffusers_names, "_taken", {})
    diffusers_names._patch(module)
    assert module.LoRAAttnProcessor is Theirs
    assert not diffusers_names._taken
