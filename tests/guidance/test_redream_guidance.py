"""The adapted target and the delta regulariser."""

import pytest
import torch

from threestudio_redream.errors import ConfigError
from threestudio_redream.guidance.redream import VIEW_ADAPTER, ReDreamGuidance, adapter_gate
from threestudio_redream.guidance.vsd import VSDGuidance
from threestudio_redream.prompt_processors.stable_diffusion import StableDiffusionPromptProcessor

CAMERAS = (torch.tensor([10.0, 70.0]), torch.tensor([0.0, 120.0]), torch.tensor([1.5, 1.5]))
C2W = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(8))
IMAGES, ASSET = torch.rand(2, 2, 64, 64, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def prompts(tiny_model, tmp_path_factory):
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.chdir(tmp_path_factory.mktemp("cache"))
    processor = StableDiffusionPromptProcessor(
        {"pretrained_model_name_or_path": str(tiny_model), "prompt": "a red cat"}
    )
    monkeypatch.undo()
    return processor()


def make(model, kind=ReDreamGuidance, **keys):
    guidance = kind({"pretrained_model_name_or_path": str(model), "guidance_scale": 3.0, **keys})
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():  # as after some training
        for parameter in guidance.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return guidance


def adapt(guidance, seed=6):
    generator = torch.Generator().manual_seed(seed)
    own = guidance.switched.parameters(VIEW_ADAPTER)
    guidance.load_adapter({name: torch.randn(v.shape, generator=generator) * 0.3 for name, v in own.items()})


def gradient(guidance, prompts, images=IMAGES, step=0, seed=7, **batch):
    images = images.clone().requires_grad_(True)
    guidance.do_update_step(0, step)
    generator = torch.Generator().manual_seed(seed)
    said = guidance(images, prompts, *CAMERAS, c2w=C2W, generator=generator, **batch)
    said["loss_vsd"].backward()
    return images.grad


@pytest.mark.parametrize("way", ["encoder", "decoder"])
@pytest.mark.parametrize("form", ["difference", "control_variate"])
def test_the_asset_itself_is_a_fixed_point(tiny_model, prompts, way, form):
    guidance = make(tiny_model, gradient=way, delta_form=form, delta_every=1)
    adapt(guidance)
    assert not bool(gradient(guidance, prompts, ASSET, reference_rgb=ASSET).any())
    assert bool(gradient(guidance, prompts, IMAGES, reference_rgb=ASSET).any())


def test_the_regularised_gradient_is_the_difference_of_two_gradients(tiny_model, prompts):
    guidance = make(tiny_model, gradient="encoder")
    latents = guidance.model.encode(IMAGES).detach().permute(0, 2, 3, 1)
    asset = guidance.model.encode(ASSET).detach().permute(0, 2, 3, 1)
    both = gradient(guidance, prompts, latents, rgb_as_latents=True, reference_rgb=ASSET)
    alone = gradient(guidance, prompts, latents, rgb_as_latents=True)
    of_asset = gradient(guidance, prompts, asset, rgb_as_latents=True)
    torch.testing.assert_close(both, alone - of_asset, rtol=1e-4, atol=1e-5)


def test_without_the_particles_term_it_is_dds(tiny_model, prompts):
    guidance = make(tiny_model, delta_with_particles=False)
    latents = guidance.model.encode(IMAGES).detach().permute(0, 2, 3, 1)
    both = gradient(guidance, prompts, latents, rgb_as_latents=True, reference_rgb=ASSET)
    alone = gradient(guidance, prompts, latents, rgb_as_latents=True)
    generator = torch.Generator().manual_seed(7)
    z = guidance.model.encode(ASSET).detach()
    steps = guidance.sample_timesteps(2, "cpu", generator)
    noise = torch.randn(z.shape, generator=generator)
    alpha, sigma = guidance.model.alpha_sigma(steps)
    guess = guidance.model.guided(alpha * z + sigma * noise, steps, prompts.get_text_embeddings(*CAMERAS), 3.0)
    expected = alone - (sigma**2 * (guess.noise - noise) / 2).permute(0, 2, 3, 1)
    torch.testing.assert_close(both, expected, rtol=1e-4, atol=1e-5)


def test_it_acts_on_every_nth_step_until_its_end(tiny_model, prompts):
    guidance = make(tiny_model, delta_every=3, delta_until=6)
    plain = gradient(guidance, prompts)

    def acts(step):
        return not torch.equal(gradient(guidance, prompts, step=step, reference_rgb=ASSET), plain)

    assert [acts(step) for step in range(8)] == [True, False, False, True, False, False, False, False]
    off = make(tiny_model, delta_every=0)
    assert torch.equal(gradient(off, prompts, reference_rgb=ASSET), plain)


def test_without_asset_and_adapter_it_is_vsd_bit_by_bit(tiny_model, prompts):
    assert torch.equal(gradient(make(tiny_model), prompts), gradient(make(tiny_model, VSDGuidance), prompts))


def test_the_adapter_moves_the_target_alone_and_scale_0_is_the_pretrained_model(tiny_model, prompts):
    guidance = make(tiny_model, adapter_gate=[0, 0])
    plain = gradient(guidance, prompts)
    adapt(guidance)
    assert not torch.allclose(gradient(guidance, prompts), plain, rtol=1e-2)
    off = make(tiny_model, adapter_scale=0.0)
    adapt(off)
    assert torch.equal(gradient(off, prompts), plain)
    weights = {name: value.detach() for name, value in guidance.switched.parameters(VIEW_ADAPTER).items()}
    generator = torch.Generator().manual_seed(7)
    said = guidance(IMAGES, prompts, *CAMERAS, c2w=C2W, generator=generator)
    said["loss_lora"].backward()
    assert all(torch.equal(value, weights[name]) for name, value in guidance.switched.parameters(VIEW_ADAPTER).items())
    assert not any("views" in name for name in guidance.state_dict())


def test_the_adapter_fades_out_below_its_gate(tiny_model, prompts):
    steps = torch.tensor([0, 250, 300, 375, 500, 999])
    torch.testing.assert_close(adapter_gate(steps, 250, 500), torch.tensor([0.0, 0.0, 0.2, 0.5, 1.0, 1.0]))
    assert adapter_gate(steps, 0, 0).tolist() == [1.0] * 6
    assert adapter_gate(steps, 300, 300).tolist() == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    guidance = make(tiny_model, max_step_percent=0.2)  # all timesteps below the gate
    plain = gradient(guidance, prompts)
    adapt(guidance)
    assert torch.equal(gradient(guidance, prompts), plain)


def test_the_scale_can_follow_a_schedule(tiny_model, prompts):
    guidance = make(tiny_model, adapter_scale=[0, 1.0, 0.0, 10], adapter_gate=[0, 0])
    plain = gradient(guidance, prompts, step=10)
    adapt(guidance)
    assert torch.equal(gradient(guidance, prompts, step=10), plain)
    assert not torch.equal(gradient(guidance, prompts, step=4), plain)


def test_the_control_variate_subtracts_what_the_asset_explains(tiny_model):
    guidance = make(tiny_model, delta_form="control_variate")
    generator = torch.Generator().manual_seed(3)
    told = 0.0
    for _ in range(100):
        asset = torch.randn(2, 4, 8, 8, generator=generator)
        told = guidance._share(0.6 * asset + 0.5 * torch.randn(asset.shape, generator=generator), asset)
    assert float(told) == pytest.approx(0.6, abs=0.06)
    opposed = make(tiny_model, delta_form="control_variate")
    assert float(opposed._share(-asset, asset)) == 0.0  # never added
    assert "delta_products" in guidance.state_dict()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"delta_form": "sum"}, "delta term"),
        ({"delta_every": -1}, "delta_every"),
        ({"adapter_gate": [500, 250]}, "adapter_gate"),
        ({"adapter_rank": 0}, "rank"),
    ],
)
def test_bad_settings_are_named(tiny_model, keys, message):
    with pytest.raises(ConfigError, match=message):
        make(tiny_model, **keys)


@pytest.mark.parametrize("lora_scale", [1.0, 0.7])
@pytest.mark.parametrize("gate", [(0, 0), (250, 500)])
def test_one_call_says_what_separate_calls_say(tiny_model, prompts, gate, lora_scale):
    keys = {"delta_every": 2, "adapter_gate": gate, "guidance_scale_lora": lora_scale}
    at_once, apart = make(tiny_model, **keys), make(tiny_model, one_call=False, **keys)
    adapt(at_once)
    adapt(apart)
    for step in (0, 1):
        one = gradient(at_once, prompts, step=step, reference_rgb=ASSET)
        two = gradient(apart, prompts, step=step, reference_rgb=ASSET)
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5 * float(two.abs().max()))
        assert bool(two.any())
