"""What saves memory changes nothing else."""

import pytest
import torch

from threestudio_redream.errors import ConfigError
from threestudio_redream.guidance.adapters import SwitchedUNet
from threestudio_redream.guidance.latent_diffusion import LatentDiffusion
from threestudio_redream.guidance.memory import MemoryConfig, apply_memory

NOISY = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
CONTEXT = torch.randn(3, 24, 16, generator=torch.Generator().manual_seed(1))
STEPS = torch.tensor([20, 500, 980])


def with_adapters(model):
    """A UNet with two adapters that both do something, one of them trainable."""
    switched = SwitchedUNet(model.unet)
    for name in ("particles", "views"):
        switched.add(name, trainable=name == "particles", seed=7)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name in ("particles", "views"):
            for key, weight in switched.parameters(name).items():
                if "lora_B" in key:
                    weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return switched


def lora_gradients(model, switched):
    """Gradients of the trainable adapter, taken when another model is switched on already."""
    time = torch.full((3, switched.time_width), 0.1)
    with switched.using("particles", scale={"particles": torch.tensor([0.0, 0.5, 1.0])}, time=time):
        output = model.predict(NOISY, STEPS, CONTEXT)
    with switched.using("views"):
        output.square().mean().backward()
    found = {name: weight.grad.clone() for name, weight in switched.parameters("particles").items()}
    for weight in switched.parameters("particles").values():
        weight.grad = None
    return found


def saved_bytes(call):
    """Bytes that autograd keeps for the backward pass of ``call``, each storage once."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return sum(kept.values())


@pytest.mark.parametrize("first", ["adapters", "checkpointing"])
def test_checkpointing_goes_back_through_the_adapters_of_the_call(tiny_model, first):
    plain = LatentDiffusion.load(str(tiny_model))
    expected = lora_gradients(plain, with_adapters(plain))
    saving = LatentDiffusion.load(str(tiny_model), memory={} if first == "adapters" else {"unet_checkpointing": True})
    switched = with_adapters(saving)
    apply_memory(saving, MemoryConfig(unet_checkpointing=True))
    found = lora_gradients(saving, switched)
    assert expected.keys() == found.keys()
    assert any(float(value.abs().max()) > 0 for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-7, msg=name)
    # and leaves them as it found them
    after = lora_gradients(saving, switched)
    assert all(torch.equal(found[name], value) for name, value in after.items())


def test_checkpointing_keeps_less(tiny_model):
    kept = {}
    for saving in (False, True):
        model = LatentDiffusion.load(
            str(tiny_model), memory={"unet_checkpointing": saving, "vae_checkpointing": saving}
        )
        switched = with_adapters(model)
        images = torch.rand(1, 64, 64, 3, requires_grad=True)

        def score(model=model, switched=switched):
            with switched.using("particles"):
                model.predict(NOISY, STEPS, CONTEXT)

        kept[saving] = (saved_bytes(score), saved_bytes(lambda model=model, images=images: model.encode(images)))
    assert kept[True][0] < 0.6 * kept[False][0]
    assert kept[True][1] < 0.6 * kept[False][1]


@pytest.mark.parametrize("keys", [{"vae_checkpointing": True}, {"vae_slicing": True}, {"attention": "sliced"}])
def test_the_numbers_stay(tiny_model, keys):
    plain, saving = LatentDiffusion.load(str(tiny_model)), LatentDiffusion.load(str(tiny_model), memory=keys)
    results = []
    for model in (plain, saving):
        images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(4)).requires_grad_()
        latents = model.encode(images)
        latents.square().sum().backward()
        with torch.no_grad():
            results.append((latents, images.grad, model.decode(latents), model.predict(NOISY, STEPS, CONTEXT)))
    for one, other in zip(*results):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_sliced_attention_is_sliced(tiny_model):
    model = LatentDiffusion.load(str(tiny_model), memory={"attention": "sliced"})
    assert {type(processor).__name__ for processor in model.unet.attn_processors.values()} == {"SlicedAttnProcessor"}
    model = LatentDiffusion.load(str(tiny_model), memory={"vae_slicing": True})
    assert model.vae.use_slicing


def test_wrong_keys_are_named(tiny_model):
    with pytest.raises(ConfigError, match="kind of attention") as error:
        LatentDiffusion.load(str(tiny_model), memory={"attention": "flash"})
    assert error.value.received == "flash"
    assert "sliced" in error.value.fix
    with pytest.raises(ConfigError, match="no key 'vae_slice'") as error:
        LatentDiffusion.load(str(tiny_model), memory={"vae_slice": True})
    assert "vae_slicing" in error.value.fix


def test_embeddings_may_come_from_another_device(tiny_model):
    class Elsewhere(torch.Tensor):
        """Says where it was sent to, as only a CPU is here."""

        def to(self, *args, **kwargs):
            self.sent = args
            return torch.Tensor.to(self, *args, **kwargs)

    model = LatentDiffusion.load(str(tiny_model))
    context = CONTEXT.as_subclass(Elsewhere)
    with torch.no_grad():
        model.predict(NOISY, STEPS, context)
    assert context.sent == (torch.device("cpu"), torch.float32)
