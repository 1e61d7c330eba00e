"""A LoRA of somebody's style, added to a diffusion model's weights when it is opened.

Any file that diffusers' ``load_lora_weights`` reads, as safetensors. Its part for the text encoder is not used: prompts
are embedded by the prompt processor, with the model's own encoder.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.config import parse_structured

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["StyleConfig", "apply_style"]

log = logging.getLogger("pytorch_lightning")


@dataclass
class StyleConfig:
    """Keys of ``system.guidance.style``.

    Attributes:
        path: a safetensors file, a folder with ``pytorch_lora_weights.safetensors``, or a hub id; empty for none.
        file: name of the file in the folder or the hub's repository, if it is another. scale: 1 is as trained.
    """

    path: str = ""
    file: str = ""
    scale: float = 1.0


def apply_style(unet: nn.Module, cfg: StyleConfig | Mapping[str, Any] | None) -> str:
    """Add a style to the weights of a diffusers ``UNet2DConditionModel``, for good.

    Returns:
        A fingerprint of what was added; empty if nothing was.

    Raises:
        ConfigError: there is no such file, or it holds nothing for this UNet.
    """
    if not isinstance(cfg, StyleConfig):
        cfg = OmegaConf.to_object(parse_structured(StyleConfig, cfg))  # type: ignore[assignment]
    assert isinstance(cfg, StyleConfig)
    if not cfg.path:
        return ""
    tensors, alphas = _read(cfg)
    parts = {name.split(".")[0] for name in tensors}
    if "unet" not in parts:
        raise ConfigError(
            "The style holds nothing for the UNet",
            received=sorted(parts),
            fix="Give a LoRA of Stable Diffusion's UNet.",
        )
    if "text_encoder" in parts:
        log.warning("The style %s also changes the text encoder; that part is not used.", cfg.path)
    from diffusers.loaders import StableDiffusionLoraLoaderMixin

    try:
        StableDiffusionLoraLoaderMixin.load_lora_into_unet(tensors, network_alphas=alphas, unet=unet)
    except (ValueError, RuntimeError, KeyError) as cause:
        raise ConfigError(
            f"The style does not fit this model: {str(cause).splitlines()[0]}",
            received=cfg.path,
            fix="Use a LoRA that was trained for this Stable Diffusion.",
        ) from cause
    unet.fuse_lora(lora_scale=cfg.scale)  # type: ignore[operator]
    unet.unload_lora()  # type: ignore[operator]
    return _fingerprint(tensors, cfg.scale)


def _read(cfg: StyleConfig) -> tuple[dict[str, Tensor], Any]:
    """Tensors by diffusers' names, and the alphas that some formats keep beside them."""
    from diffusers.loaders import StableDiffusionLoraLoaderMixin
    from safetensors import SafetensorError

    path = Path(cfg.path).expanduser()
    given: dict[str, Any] = {"use_safetensors": True}
    if path.is_file():
        path, given["weight_name"] = path.parent, path.name
    elif cfg.file:
        given["weight_name"] = cfg.file
    if not str(given.get("weight_name", "x.safetensors")).endswith(".safetensors"):
        raise ConfigError(
            "A style must be a safetensors file", received=given["weight_name"], fix="Convert it: others can run code."
        )
    name = str(path) if path.exists() else cfg.path
    try:
        tensors, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(name, **given)
    except (OSError, ValueError, SafetensorError) as cause:
        raise ConfigError(
            f"The style cannot be opened: {str(cause).splitlines()[0]}",
            received=cfg.path,
            fix="Name a safetensors file, a folder or a hub id in system.guidance.style.path.",
        ) from cause
    return tensors, alphas


def _fingerprint(tensors: Mapping[str, Tensor], scale: float) -> str:
    digest = hashlib.sha256(repr(scale).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].float().cpu().numpy().tobytes())
    return digest.hexdigest()
