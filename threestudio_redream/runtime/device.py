"""Which device this process computes on. Chosen once, never hard-wired."""

from __future__ import annotations

import os

import torch

from threestudio_redream.errors import ConfigError

__all__ = ["choose_accelerator", "cleanup", "get_device", "get_rank", "set_device"]

_chosen: torch.device | None = None


def get_rank() -> int:
    """Rank of this process in a distributed run, 0 otherwise."""
    for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        if os.environ.get(key, "").isdigit():
            return int(os.environ[key])
    return 0


def choose_accelerator(gpu: str = "auto") -> str:
    """``"cuda"``, ``"mps"`` or ``"cpu"`` for the ``--gpu`` flag.

    ``gpu`` is ``"cpu"``, ``"mps"``, ``"auto"``, or a CUDA index such as ``"0"``. Index 0 falls back
    to the best device present when there is no CUDA device, because it is upstream's default.

    Raises:
        ConfigError: if the text is none of these, or names several devices, or one that is not there.
    """
    text = gpu.strip().lower()
    if text == "cpu":
        return "cpu"
    if "," in text:
        raise ConfigError(
            "A run uses one device",
            received=gpu,
            fix="Give one CUDA index, such as 0; for several prompts at a time start one process for each GPU.",
        )
    if text not in ("auto", "mps") and not text.isdigit():
        raise ConfigError(
            "The --gpu flag is not understood", received=gpu, fix="Use cpu, auto, mps, or a CUDA index such as 0."
        )
    if text != "mps" and torch.cuda.is_available():
        return "cuda"
    if text not in ("0", "auto", "mps"):
        raise ConfigError("There is no such CUDA device", received=gpu, fix="nvidia-smi lists them; or --gpu cpu.")
    if torch.backends.mps.is_available():
        return "mps"
    if text == "mps":
        raise ConfigError("There is no MPS device", received=gpu, fix="Use --gpu auto, or --gpu cpu.")
    return "cpu"


def set_device(device: str | torch.device | None) -> None:
    """Fix the device that :func:`get_device` returns; None goes back to automatic choice."""
    global _chosen
    _chosen = None if device is None else torch.device(device)


def get_device() -> torch.device:
    """The device new modules belong to: the one set by the launcher, else the best one present."""
    if _chosen is not None:
        return _chosen
    accelerator = choose_accelerator()
    if accelerator == "cuda":
        return torch.device("cuda", get_rank() % torch.cuda.device_count())
    return torch.device(accelerator)


def cleanup() -> None:
    """Give cached accelerator memory back (nothing on a CPU)."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
