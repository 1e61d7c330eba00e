"""Time for memory: what a diffusion model can do to fit on a smaller GPU. Results stay the same up to rounding."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.config import parse_structured

if TYPE_CHECKING:
    from threestudio_redream.guidance.latent_diffusion import LatentDiffusion

__all__ = ["ATTENTIONS", "MemoryConfig", "apply_memory"]

ATTENTIONS = ("fused", "sliced")


@dataclass
class MemoryConfig:
    """How memory is saved. Everything is off by default.

    Attributes:
        unet_checkpointing: keep no activations of the UNet for the backward pass of a LoRA, but compute them again:
            about a third more time for ``loss_lora`` and the adaptation, and the largest saving.
        vae_checkpointing: the same for the autoencoder, whose encoder is in the backward pass of every step with
            ``gradient: encoder``.
        vae_slicing: encode and decode pictures one after the other. Helps batches, and the delta term.
        attention: ``fused`` is torch's attention, whose memory grows with the number of pixels. ``sliced`` takes
            the heads one by one, for devices on which torch's attention needs their square (old GPUs, Apple); on
            others it only costs time.
    """

    unet_checkpointing: bool = False
    vae_checkpointing: bool = False
    vae_slicing: bool = False
    attention: str = "fused"

    def __post_init__(self) -> None:
        if self.attention not in ATTENTIONS:
            raise ConfigError(
                "Unknown kind of attention", received=self.attention, fix=f"Use one of {', '.join(ATTENTIONS)}."
            )


def apply_memory(model: LatentDiffusion, cfg: MemoryConfig | Mapping[str, Any] | None) -> None:
    """Make a model work as :class:`MemoryConfig` says. Adapters may be added before or after.

    Raises:
        ConfigError: an unknown key or value.
    """
    if not isinstance(cfg, MemoryConfig):
        cfg = OmegaConf.to_object(parse_structured(MemoryConfig, cfg))  # type: ignore[assignment]
    assert isinstance(cfg, MemoryConfig)
    if cfg.unet_checkpointing:
        model.unet.enable_gradient_checkpointing(_checkpointed)
    if cfg.vae_checkpointing:
        model.vae.enable_gradient_checkpointing(_checkpointed)
    if cfg.vae_slicing:
        model.vae.enable_slicing()
    if cfg.attention == "sliced":
        model.unet.set_attention_slice("max")


def _checkpointed(module: nn.Module, *inputs: Any) -> Tensor:
    """``module(*inputs)``, computed again in the backward pass with the adapters that act now."""
    contexts = lambda: (nullcontext(), _AsNow(module))  # noqa: E731
    # No layer draws random numbers, so there is no random state to keep.
    return checkpoint(module, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


class _AsNow(AbstractContextManager):
    """Within it, the adapters of a module act as they did when it was made.

    Adapters are switched per call of the UNet (:class:`~threestudio_redream.guidance.adapters.SwitchedUNet`), and the
    backward pass comes when the call is over: without this it would go through the wrong model.
    """

    NAMES = ("_active_adapter", "_disable_adapters")

    def __init__(self, module: nn.Module) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        self.layers: list[Any] = [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]
        self.then = self._read()
        self.before: list[list[Any]] = []

    def __enter__(self) -> None:
        self.before = self._read()
        self._write(self.then)

    def __exit__(self, *_: object) -> None:
        self._write(self.before)

    def _read(self) -> list[list[Any]]:
        return [[*(getattr(layer, name) for name in self.NAMES), dict(layer.scaling)] for layer in self.layers]

    def _write(self, states: list[list[Any]]) -> None:
        for layer, (*values, scaling) in zip(self.layers, states):
            for name, value in zip(self.NAMES, values):
                setattr(layer, name, value)
            layer.scaling.update(scaling)
