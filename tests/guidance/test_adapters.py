"""Adapters in one UNet: switched per call, scaled per picture, trained without touching the rest."""

import warnings

import pytest
import torch

from threestudio_redream.errors import ConfigError
from threestudio_redream.guidance.adapters import SwitchedUNet
from threestudio_redream.guidance.latent_diffusion import LatentDiffusion

STEPS = torch.tensor([10, 600])


@pytest.fixture
def unet(tiny_model):
    return SwitchedUNet(LatentDiffusion.load(str(tiny_model)).unet)


def ask(unet, count=2):
    generator = torch.Generator().manual_seed(2)
    noisy, context = torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 7, 16, generator=generator)
    return unet(noisy[:count], STEPS[:count], encoder_hidden_states=context[:count]).sample


def disturb(parameters, seed=5):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in parameters.values():
            value.add_(torch.randn(value.shape, generator=generator) * 0.3)


@torch.no_grad()
def test_a_new_adapter_changes_nothing_and_one_that_does_not_act_neither(unet):
    before = ask(unet)
    weights = unet.add("views", rank=3)
    assert weights
    assert {min(value.shape) for value in weights.values()} == {3}
    with unet.using("views"):
        assert torch.equal(ask(unet), before)
    disturb(weights)
    assert torch.equal(ask(unet), before)
    with unet.using():
        assert torch.equal(ask(unet), before)
    with unet.using("views"):
        assert not torch.allclose(ask(unet), before, atol=1e-3)
    assert torch.equal(ask(unet), before)


@torch.no_grad()
def test_the_output_is_that_of_weights_with_the_update_added(unet, tiny_model):
    weights = unet.add("views", rank=2, alpha=6.0)
    disturb(weights)
    plain = LatentDiffusion.load(str(tiny_model)).unet
    own = dict(plain.named_parameters())
    for name, down in weights.items():
        if ".lora_A." in name:
            up = weights[name.replace("lora_A", "lora_B")]
            own[name.replace("lora_A.views.", "")].add_(0.5 * 6.0 / 2 * up @ down)
    with unet.using("views", scale=0.5):
        torch.testing.assert_close(ask(unet), ask(plain), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_each_picture_can_have_a_scale_of_its_own(unet):
    disturb(unet.add("views"))
    without = ask(unet)
    with unet.using("views"):
        full = ask(unet)
    with unet.using("views", scale=torch.tensor([0.0, 1.0])):
        mixed = ask(unet)
    torch.testing.assert_close(mixed[0], without[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mixed[1], full[1], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_two_adapters_do_not_know_of_each_other(unet):
    first = unet.add("views")
    disturb(first)
    with unet.using("views"):
        alone = ask(unet)
    second = unet.add("particles")
    with unet.using("views"):
        assert torch.equal(ask(unet), alone)
    disturb(second, 9)
    with unet.using("views"):
        assert torch.equal(ask(unet), alone)
    with unet.using("views", "particles"):
        assert not torch.allclose(ask(unet), alone, atol=1e-3)


def test_only_a_trainable_adapter_gets_gradients_also_after_the_block(unet):
    fixed, trained = unet.add("views", trainable=False), unet.add("particles")
    disturb(fixed)
    disturb(trained)
    with unet.using("particles"):
        loss = ask(unet).square().mean()
    with unet.using("views"), torch.no_grad():
        ask(unet)
    loss.backward()
    assert all(value.grad is not None and bool(value.grad.any()) for value in trained.values())
    assert all(value.grad is None for value in fixed.values())
    asked = {name for name, value in unet.unet.named_parameters() if value.requires_grad}
    assert asked == set(trained)


def test_what_is_trained_can_be_changed(unet):
    first, second = unet.add("views"), unet.add("particles")
    unet.train_only("views")
    with unet.using("views", "particles"):
        loss = ask(unet).square().mean()
    loss.backward()
    assert any(value.grad is not None for value in first.values())
    assert not any(value.requires_grad for value in second.values())


@torch.no_grad()
def test_a_condition_is_added_to_the_time_embedding(unet):
    before = ask(unet)
    condition = torch.randn(2, unet.time_width, generator=torch.Generator().manual_seed(1))
    condition[0] = 0.0
    with unet.using(time=condition):
        after = ask(unet)
    torch.testing.assert_close(after[0], before[0])
    assert not torch.allclose(after[1], before[1], atol=1e-4)
    assert torch.equal(ask(unet), before)


def test_the_state_is_put_back_when_the_block_fails(unet):
    disturb(unet.add("views"))
    before = ask(unet)
    with pytest.raises(ZeroDivisionError), unet.using("views", scale=0.1, time=torch.ones(1, unet.time_width)):
        raise ZeroDivisionError
    assert torch.equal(ask(unet), before)
    with unet.using("views"):
        full = ask(unet)
    with unet.using("views", scale=0.1):
        assert not torch.allclose(ask(unet), full, atol=1e-4)


def test_a_low_precision_model_has_adapters_in_full_precision(tiny_model):
    unet = SwitchedUNet(LatentDiffusion.load(str(tiny_model), dtype="bfloat16").unet)
    weights = unet.add("particles")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    disturb(weights)
    with unet.using("particles"):
        out = unet(
            torch.randn(1, 4, 16, 16).bfloat16(), STEPS[:1], encoder_hidden_states=torch.randn(1, 7, 16).bfloat16()
        )
    assert out.sample.dtype == torch.bfloat16
    out.sample.float().sum().backward()
    assert all(value.grad is not None for value in weights.values())


def test_the_same_seed_gives_the_same_adapter_whatever_was_drawn_before(tiny_model):
    def weights(seed):
        return SwitchedUNet(LatentDiffusion.load(str(tiny_model)).unet).add("views", seed=seed)

    first = weights(1)
    torch.rand(5)
    second, other = weights(1), weights(2)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


def test_loading(unet):
    weights = unet.add("views")
    wanted = {name: torch.randn_like(value) for name, value in weights.items()}
    unet.load("views", wanted)
    assert all(torch.equal(value, wanted[name]) for name, value in unet.parameters("views").items())
    name = next(iter(wanted))
    with pytest.raises(ConfigError, match="do not fit"):
        unet.load("views", {key: value for key, value in wanted.items() if key != name})
    with pytest.raises(ConfigError, match="do not fit"):
        unet.load("views", wanted | {name: torch.zeros(1, 1)})


def test_bad_names_ranks_and_layers(unet):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unet.add("views")
        unet.add("more")
    for name in ("views", "a.b", ""):
        with pytest.raises(ConfigError, match="name of its own"):
            unet.add(name)
    with pytest.raises(ConfigError, match="rank"):
        unet.add("flat", rank=0)
    with pytest.raises(ConfigError, match="cannot be added"):
        unet.add("lost", targets=("to_nowhere",))
    with pytest.raises(ConfigError, match="No such adapter"), unet.using("unknown"):
        pass
