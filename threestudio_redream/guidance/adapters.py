"""One frozen UNet with LoRA adapters that are switched per call.

Score distillation with an adapted prior asks three models about one picture: the pretrained UNet, the UNet adapted to
the retrieved assets, and the one that follows the renders. All three share the pretrained weights; only low-rank
updates of the attention projections (Hu et al., 2022) differ, so they live in one UNet as peft adapters.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from threestudio_redream.errors import ConfigError

__all__ = ["ATTENTION", "SwitchedUNet"]

#: The projections of every attention block, as diffusers names them.
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")

Scale = float | Tensor


class SwitchedUNet:
    """A ``UNet2DConditionModel`` whose adapters are chosen by :meth:`using`.

    Outside of ``using`` no adapter acts, whatever has been added. The parameters of an adapter that was added as
    trainable are float32 and require gradients at all times; everything else is frozen.

    Attributes:
        unet: the model itself. Its weights are shared, not copied.
    """

    def __init__(self, unet: Any) -> None:
        self.unet = unet.requires_grad_(False)
        self._layers: list[Any] = []
        self._trainable: dict[str, bool] = {}
        self._ratio: dict[str, float] = {}
        self._extra: Tensor | None = None
        unet.time_embedding.register_forward_hook(self._add_to_time)

    @property
    def names(self) -> tuple[str, ...]:
        """Adapters that were added."""
        return tuple(self._trainable)

    @property
    def time_width(self) -> int:
        """Channels of the time embedding."""
        return int(self.unet.time_embedding.linear_2.out_features)

    def add(
        self,
        name: str,
        *,
        rank: int = 4,
        alpha: float | None = None,
        targets: tuple[str, ...] = ATTENTION,
        trainable: bool = True,
        seed: int = 0,
    ) -> dict[str, nn.Parameter]:
        """Add an adapter that changes nothing yet: A is drawn from the seed, B is 0.

        Args:
            name: letters, digits and underscores. rank: of the update. alpha: its factor is ``alpha / rank``; None
                means 1. targets: ends of the names of the layers that are adapted.

        Returns:
            its parameters by name.

        Raises:
            ConfigError: a bad or used name, a rank below 1, or targets that the UNet does not have.
        """
        if not re.fullmatch(r"\w+", name) or name in self._trainable:
            raise ConfigError("An adapter needs a name of its own", received=name, fix=f"Not one of {self.names}.")
        if rank < 1:
            raise ConfigError("The rank of an adapter must be 1 or more", received=rank, fix="4 is usual.")
        from peft import LoraConfig
        from peft.tuners.tuners_utils import BaseTunerLayer

        config = LoraConfig(r=rank, lora_alpha=rank if alpha is None else alpha, target_modules=list(targets))  # type: ignore[arg-type]
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several are meant
                self.unet.add_adapter(config, adapter_name=name)
        except ValueError as cause:
            raise ConfigError(
                f"The adapter cannot be added: {cause}", received=targets, fix="Name layers of the UNet."
            ) from cause
        self._layers = [layer for layer in self.unet.modules() if isinstance(layer, BaseTunerLayer)]
        self._trainable[name] = trainable
        generator = torch.Generator().manual_seed(seed)
        for layer in self._layers:
            if name in layer.lora_A:
                down, up = layer.lora_A[name].float().weight, layer.lora_B[name].float().weight
                self._ratio[name] = float(layer.scaling[name])
                with torch.no_grad():
                    down.copy_(torch.randn(down.shape, generator=generator) / rank)
                    up.zero_()
        self._activate(())
        return self.parameters(name)

    def parameters(self, name: str) -> dict[str, nn.Parameter]:
        """Parameters of an adapter by their name in the UNet."""
        parts = (f"lora_A.{name}.weight", f"lora_B.{name}.weight")
        return {key: value for key, value in self.unet.named_parameters() if key.endswith(parts)}

    def train_only(self, *names: str) -> tuple[str, ...]:
        """From now on these adapters are trainable and the others are not; returns those that were."""
        before = tuple(name for name, trainable in self._trainable.items() if trainable)
        for name in self._trainable:
            self._trainable[name] = name in names
        self._activate(())
        return before

    def load(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Put values into an adapter.

        Raises:
            ConfigError: the names or shapes are not those of :meth:`parameters`.
        """
        own = self.parameters(name)
        wrong = sorted(set(own) ^ set(tensors)) or [k for k, v in own.items() if v.shape != tensors[k].shape]
        if wrong:
            raise ConfigError(
                f"The weights do not fit the adapter '{name}'",
                received=wrong[:3],
                fix="Use the rank and the model it was trained with.",
            )
        with torch.no_grad():
            for key, parameter in own.items():
                parameter.copy_(tensors[key])

    @contextmanager
    def using(
        self, *names: str, scale: Scale | Mapping[str, Scale] = 1.0, time: Tensor | None = None
    ) -> Iterator[SwitchedUNet]:
        """Let adapters act within the block.

        Args:
            names: adapters; none means the pretrained UNet.
            scale: factor on all of them, or on each by name; a tensor ``[B]`` gives each picture of the batch its own,
                so one call can ask different models about different pictures.
            time: ``[B, time_width]``, added to the time embedding (a condition such as the camera).

        Raises:
            ConfigError: an adapter that was not added.
        """
        if unknown := set(names) - set(self._trainable):
            raise ConfigError("No such adapter", received=sorted(unknown), fix=f"Use some of {self.names}.")
        given = scale if isinstance(scale, Mapping) else dict.fromkeys(names, scale)
        factors = {
            name: (value.view(-1, 1, 1) if isinstance(value, Tensor) else float(value)) * self._ratio[name]
            for name, value in given.items()
        }
        self._select(names)
        for layer in self._layers:
            for name in names:
                if name in layer.scaling:
                    layer.scaling[name] = factors[name]
        self._extra = time
        try:
            yield self
        finally:
            self._extra = None
            for layer in self._layers:
                for name in names:
                    if name in layer.scaling:
                        layer.scaling[name] = self._ratio[name]
            self._select(())

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.unet(*arguments, **keywords)

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    def _activate(self, names: tuple[str, ...]) -> None:
        for layer in self._layers:
            layer.enable_adapters(bool(names))
            if names:
                layer.set_adapter(list(names))
        # peft ties "acts" to "is trained"; here they are different things, and gradients are due after the block.
        for layer in self._layers:
            for table in (layer.lora_A, layer.lora_B):
                for name, module in table.items():
                    module.weight.requires_grad_(self._trainable[name])

    def _select(self, names: tuple[str, ...]) -> None:
        """What :meth:`_activate` does, between two calls of the UNet.

        peft's own switches also walk through all weights to say which are trained, 8 ms for 56 layers on a CPU, as
        long as a third of a call of the mini UNet. Here that never changes, so only what its forward pass reads is set.
        """
        for layer in self._layers:
            if not (hasattr(layer, "_active_adapter") and hasattr(layer, "_disable_adapters")):
                self._activate(names)
                return
            layer._disable_adapters = not names
            if names:
                layer._active_adapter = list(names)

    def _add_to_time(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output if self._extra is None else output + self._extra.to(output)
