"""Several guidances on the same render, each with its weight: ``system.guidances``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime import Updateable, find
from threestudio_redream.runtime.schedule import C

__all__ = ["MixedGuidances", "figures_of"]

#: Keys of an entry that are not the guidance's own.
OWN = ("type", "weight", "name", "prompt_processor_type", "prompt_processor")


class MixedGuidances(nn.Module, Updateable):
    """Guidances beside the system's main one.

    Each entry of the configuration is a mapping: ``type`` (a registered guidance) and ``weight`` (a scheduled scalar);
    ``name``, by default the type; ``prompt_processor_type`` and ``prompt_processor`` where it does not understand the
    embeddings of the system's own; every other key is the guidance's.

    Guidances with parameters are parameters of this module under their names, so that
    ``optimizer.params: {guidances.NAME: {lr: ...}}`` trains them.

    Raises:
        ConfigError: an entry without type or weight, or two of the same name.
    """

    def __init__(self, entries: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self._entries: dict[str, tuple[Any, Any, Any]] = {}
        self._now = (0, 0)
        for entry in entries:
            values = dict(entry)
            if "type" not in values or "weight" not in values:
                raise ConfigError(
                    "An entry of system.guidances needs type and weight",
                    received=sorted(values),
                    fix="{type: redream-sds-guidance, weight: 0.1, guidance_scale: 5}",
                )
            name = str(values.get("name", values["type"]))
            if name in self._entries:
                raise ConfigError("Two guidances have one name", received=name, fix="Give one of them name: ...")
            guidance = find(values["type"])({key: value for key, value in values.items() if key not in OWN})
            prompts = None
            if values.get("prompt_processor_type"):
                prompts = find(values["prompt_processor_type"])(values.get("prompt_processor", {}))()
            C(values["weight"], 0, 0)  # a schedule that is none is found now
            self._entries[name] = (guidance, values["weight"], prompts)
            if isinstance(guidance, nn.Module):
                self.add_module(name, guidance)

    def __len__(self) -> int:
        return len(self._entries)

    def do_update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        for guidance, *_ in self._entries.values():
            if isinstance(guidance, Updateable):
                guidance.do_update_step(epoch, global_step, on_load_weights=on_load_weights)
        self._now = (epoch, global_step)

    def forward(
        self, rgb: Tensor, prompt_utils: Any, weights: Mapping[str, Any], generator_of: Any, **batch: Any
    ) -> tuple[Tensor, dict[str, float]]:
        """The weighted sum of all their losses.

        Args:
            rgb: ``[B, H, W, 3]``. prompt_utils: for those without a prompt processor of their own.
            weights: ``system.loss``; ``lambda_x`` there counts for a ``loss_x`` of theirs, 1 if it is not there.
            generator_of: from the number of a guidance to its source of noise.

        Returns:
            a scalar, and figures for the log by ``NAME/KEY``.
        """
        total = torch.zeros((), device=rgb.device)
        figures: dict[str, float] = {}
        for number, (name, (guidance, weight, own)) in enumerate(self._entries.items()):
            said = guidance(rgb, own or prompt_utils, **batch, rgb_as_latents=False, generator=generator_of(number))
            share = C(weight, *self._now)
            figures |= {f"{name}/{key}": value for key, value in figures_of(said).items()}
            for key, value in said.items():
                if key.startswith("loss_"):
                    factor = C(weights.get(f"lambda_{key.removeprefix('loss_')}", 1.0), *self._now)
                    total = total + share * factor * value
        return total, figures


def figures_of(said: Mapping[str, Any]) -> dict[str, float]:
    """What of a guidance's answer is a number, for the log; tensors of several and everything else are left out."""
    found = {}
    for name, value in said.items():
        if isinstance(value, Tensor) and value.numel() == 1:
            found[name] = float(value.detach())
        elif isinstance(value, int | float):
            found[name] = float(value)
    return found
