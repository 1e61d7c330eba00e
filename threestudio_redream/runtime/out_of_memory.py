"""The device is full: what to change, in order, for the configuration at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from omegaconf import OmegaConf

from threestudio_redream.errors import RedreamError

__all__ = ["DeviceMemoryError", "advice", "advise_when_out_of_memory", "is_out_of_memory"]

SMALLEST_WIDTH, SMALLEST_SAMPLES = 64, 64


class DeviceMemoryError(RedreamError, RuntimeError):
    """The device has no memory left for what the configuration asks of it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says so: CUDA's own type, or the text that other devices use."""
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):  # torch.cuda's, later torch's
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "not enough memory" in text)


@contextmanager
def advise_when_out_of_memory(cfg: Any) -> Iterator[None]:
    """Turn a full device into a :class:`DeviceMemoryError` that lists what to do.

    Args:
        cfg: of :func:`~threestudio_redream.runtime.config.load_config`.
    """
    try:
        yield
    except Exception as cause:
        if isinstance(cause, RedreamError) or not is_out_of_memory(cause):
            raise
        listed = "\n".join(f"  {number}. {line}" for number, line in enumerate(advice(cfg), 1))
        raise DeviceMemoryError(
            f"The device ran out of memory: {(str(cause).splitlines() or [''])[0]}",
            fix=f"Change the first of these that you can bear, then the next:\n{listed}\n"
            "Go on where the run was with resume=last. How much memory a setting needs was computed, not measured: "
            "see docs/full-scale.md.",
        ) from cause


def advice(cfg: Any) -> list[str]:
    """Settings to change, the one that helps most for what it costs first. What is small already is left out."""
    system: dict[str, Any] = _plain(cfg.system)
    guidance, renderer = (system.get(part) or {} for part in ("guidance", "renderer"))
    memory = guidance.get("memory") or {}
    ours = str(system.get("guidance_type", "")).startswith("redream-")
    lines = []
    if smaller := _smaller_images(_plain(cfg.data)):
        lines.append(f"smaller training images: {smaller}")
    if ours:
        lines.append(
            "a preset for a smaller card, after the other configuration: --config custom_configs/memory/24g.yaml "
            "(then 12g.yaml, 8g.yaml)"
        )
    samples = renderer.get("num_samples_per_ray", 0)
    if isinstance(samples, int) and samples > SMALLEST_SAMPLES:
        lines.append(f"fewer samples along a ray: system.renderer.num_samples_per_ray={samples // 2}")
    if ours and guidance.get("weights_dtype", "float32") == "float32":
        lines.append("half precision for the frozen model: system.guidance.weights_dtype=float16")
    if ours and not memory.get("unet_checkpointing"):
        lines.append(
            "recompute instead of keep: system.guidance.memory.unet_checkpointing=true "
            "system.guidance.memory.vae_checkpointing=true"
        )
    adaptation = system.get("adaptation") or {}
    batch = adaptation.get("batch_size", 0)
    if isinstance(batch, int) and batch > 1:
        lines.append(f"a smaller batch for the adaptation: system.adaptation.batch_size={batch // 2}")
    if ours and system.get("guidance_type") != "redream-sds-guidance" and guidance.get("one_call", True):
        lines.append("one score at a time: system.guidance.one_call=false")
    if ours and not (system.get("prompt_processor") or {}).get("encoder_device"):
        lines.append("the text encoder on the CPU: system.prompt_processor.encoder_device=cpu")
    lines.append("if it happened while test views were rendered: system.renderer.eval_chunk_size=20000")
    lines.append("no other program on the device (nvidia-smi lists those on a CUDA card)")
    return lines


def _plain(block: Any) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(block) if OmegaConf.is_config(block) else block
    return dict(values) if isinstance(values, Mapping) else {}


def _smaller_images(data: Mapping[str, Any]) -> str:
    """Overrides that halve the largest training image and the batch; empty if neither can shrink."""
    changes = []
    for key, least in (("width", SMALLEST_WIDTH), ("height", SMALLEST_WIDTH), ("batch_size", 1)):
        values = data.get(key, 0)
        listed = list(values) if isinstance(values, list) else [values]
        if all(isinstance(value, int) for value in listed) and max(listed, default=0) > least:
            halved = [max(value // 2, least) if value == max(listed) else value for value in listed]
            shown = str(halved).replace(" ", "") if isinstance(values, list) else str(halved[0])
            changes.append(f"data.{key}={shown}")
    return " ".join(changes)
