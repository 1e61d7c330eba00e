"""``LoRAAttnProcessor`` as diffusers had it until 0.25, for extensions that were written for it.

Attention whose four projections each have a low-rank addition (Hu et al., 2021). The class of today's diffusers with
this name takes no arguments and does nothing. ``cross_attention_kwargs={"scale": s}`` weighs the additions, as then:
diffusers hands the number to every layer of peft's, and this is one.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["LoRAAttnProcessor", "LowRank"]


class LowRank(nn.Module):
    """``alpha / rank * up(down(x))``, zero at first; computed in the type of its own weights."""

    def __init__(self, width_in: int, width_out: int, rank: int = 4, network_alpha: float | None = None) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width_in, rank, bias=False), nn.Linear(rank, width_out, bias=False)
        self.factor = 1.0 if network_alpha is None else network_alpha / rank
        nn.init.normal_(self.down.weight, std=1.0 / rank)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.up(self.down(x.to(self.down.weight.dtype))).to(x.dtype)


class LoRAAttnProcessor(nn.Module, BaseTunerLayer):
    """Processor of one attention of a diffusers model, with trainable additions.

    Args:
        hidden_size: channels of what attends. cross_attention_dim: channels of what it attends to; None is itself.
        rank: of the additions. network_alpha: they count ``network_alpha / rank``; None is 1.
    """

    adapter_layer_names = ()
    other_param_names = ()

    def __init__(
        self,
        hidden_size: int,
        cross_attention_dim: int | None = None,
        rank: int = 4,
        network_alpha: float | None = None,
        **unused: Any,
    ) -> None:
        super().__init__()
        context = cross_attention_dim or hidden_size
        self.to_q_lora = LowRank(hidden_size, hidden_size, rank, network_alpha)
        self.to_k_lora = LowRank(context, hidden_size, rank, network_alpha)
        self.to_v_lora = LowRank(context, hidden_size, rank, network_alpha)
        self.to_out_lora = LowRank(hidden_size, hidden_size, rank, network_alpha)
        self.scale = 1.0

    # ------------------------------------------------------------------ what diffusers calls around a forward pass
    @property
    def active_adapters(self) -> list[str]:
        return ["default"]

    def set_scale(self, adapter: str, scale: float) -> None:
        self.scale = scale

    def scale_layer(self, scale: float) -> None:
        self.scale *= scale

    def unscale_layer(self, scale: float | None = None) -> None:
        self.scale = 1.0 if scale is None else self.scale / scale

    # ------------------------------------------------------------------ attention
    def forward(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """``[B, N, C]`` or ``[B, C, H, W]`` to the same shape; ``encoder_hidden_states`` ``[B, M, D]``."""
        residual, shape = hidden_states, hidden_states.shape
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        if hidden_states.ndim == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)

        query = attn.to_q(hidden_states) + self.scale * self.to_q_lora(hidden_states)
        key = attn.to_k(context) + self.scale * self.to_k_lora(context)
        value = attn.to_v(context) + self.scale * self.to_v_lora(context)
        query, key, value = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value))
        mask = attn.prepare_attention_mask(attention_mask, context.shape[1], len(context))
        if mask is not None:
            mask = mask.unflatten(0, (len(context), attn.heads))
        mixed = functional.scaled_dot_product_attention(query, key, value, mask, scale=attn.scale)
        mixed = mixed.transpose(1, 2).flatten(2).to(query.dtype)
        out = attn.to_out[1](attn.to_out[0](mixed) + self.scale * self.to_out_lora(mixed))
        if len(shape) == 4:
            out = out.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            out = out + residual
        return torch.div(out, attn.rescale_output_factor)
