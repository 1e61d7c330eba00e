"""An adaptation on disk, in the formats of diffusers, so that any of its pipelines can use it.

pytorch_lora_weights.safetensors     pipeline.load_lora_weights(folder)
view_tokens/<view>.safetensors       pipeline.load_textual_inversion(file), for each of the four
adaptation.json                      what it was trained on, and the history
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from threestudio_redream.adaptation.training import NAME, Adaptation
from threestudio_redream.adaptation.view_tokens import VIEWS, load_view_tokens, save_view_tokens
from threestudio_redream.errors import CheckpointError
from threestudio_redream.runtime.files import atomic_path, atomic_write_text

__all__ = ["LORA_FILE", "REPORT", "TOKEN_FOLDER", "load_adaptation", "save_adaptation"]

LORA_FILE, TOKEN_FOLDER, REPORT = "pytorch_lora_weights.safetensors", "view_tokens", "adaptation.json"
MAX_LORA_BYTES, MAX_REPORT_BYTES, MAX_TENSORS = 2**30, 2**24, 20_000


def save_adaptation(
    adaptation: Adaptation, folder: Path, *, rank: int, alpha: float | None = None, facts: dict[str, Any] | None = None
) -> None:
    """Write the folder.

    Args:
        rank, alpha: of the LoRA. Its factor ``alpha / rank`` is folded into the weights, since readers differ in
            where they look for it. facts: plain values for the report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    factor = 1.0 if alpha is None else alpha / rank
    tensors = {}
    for name, value in adaptation.lora.items():
        plain = value.detach().cpu().float() * (factor if ".lora_B." in name else 1.0)
        tensors[f"unet.{name.replace(f'.{NAME}.', '.')}"] = plain.contiguous()
    with atomic_path(folder / LORA_FILE) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    if adaptation.vectors is not None:
        save_view_tokens(adaptation.vectors, folder / TOKEN_FOLDER)
    report = {**(facts or {}), "rank": rank, "tokens": adaptation.vectors is not None, "history": adaptation.history}
    atomic_write_text(folder / REPORT, json.dumps(report, indent=1))


def load_adaptation(folder: Path, *, rank: int, alpha: float | None = None) -> Adaptation:
    """Read what :func:`save_adaptation` wrote, for an adapter of this rank and alpha.

    Raises:
        CheckpointError: a file is missing, too large, damaged, or of another rank.
    """
    fix = "Adapt the model again: redream adapt."
    path, report = folder / LORA_FILE, folder / REPORT
    factor = 1.0 if alpha is None else rank / alpha
    try:
        if path.stat().st_size > MAX_LORA_BYTES or report.stat().st_size > MAX_REPORT_BYTES:
            raise CheckpointError("A file of the adaptation is too large", received=str(folder), fix=fix)
        facts = json.loads(report.read_text("utf-8"))
        lora = {}
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if len(names) > MAX_TENSORS:
                raise CheckpointError("The adapter has too many tensors", received=len(names), fix=fix)
            for name in names:
                lora[_own_name(name)] = file.get_tensor(name) * (factor if ".lora_B." in name else 1.0)
        if not isinstance(facts, dict) or not isinstance(facts.get("history"), list):
            raise ValueError(f"{REPORT} is no report")
    except (OSError, SafetensorError, ValueError, RecursionError) as cause:
        if isinstance(cause, CheckpointError):
            raise
        raise CheckpointError(f"The adaptation cannot be read: {cause}", received=str(folder), fix=fix) from cause
    if any(rank not in value.shape or not bool(torch.isfinite(value).all()) for value in lora.values()):
        raise CheckpointError(f"The adapter is not of rank {rank}, or not finite", received=str(path), fix=fix)
    vectors: Tensor | None = None
    if facts.get("tokens"):
        found = load_view_tokens(folder / TOKEN_FOLDER)
        vectors = torch.stack([found[view] for view in VIEWS])
    return Adaptation(lora, vectors, facts["history"])


def _own_name(name: str) -> str:
    for part in ("lora_A", "lora_B"):
        if name.startswith("unet.") and name.endswith(f".{part}.weight"):
            return name.removeprefix("unet.").removesuffix("weight") + f"{NAME}.weight"
    raise ValueError(f"{name!r} is no weight of a UNet's LoRA")
