"""What a prompt processor hands to a guidance: text embeddings, chosen by camera."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.prompt_processors.directions import (
    DirectionConfig,
    direction_indices,
    shift_azimuth_deg,
)

__all__ = ["PromptProcessorOutput"]

Decay = tuple[float, ...]  # a, b, c


@dataclass
class PromptProcessorOutput:
    """Embeddings of one prompt.

    Attributes:
        text_embeddings, uncond_text_embeddings: ``[1, N, F]`` float, of the prompt and of the negative prompt.
        text_embeddings_vd, uncond_text_embeddings_vd: ``[4, N, F]``, by direction: side, front, back, overhead.
        directions, direction2idx: the directions and their indices.
        use_perp_neg: whether guidance should call :meth:`get_text_embeddings_perp_neg`.
        perp_neg_f_sb, ..._fsb, ..._fs, ..._sf: ``(a, b, c)`` of the weights ``a exp(-b r) + c`` of negative
            prompts (side against back, front against side-back, front against side, side against front).
        prompt, prompts_vd: the texts.
    """

    text_embeddings: Tensor
    uncond_text_embeddings: Tensor
    text_embeddings_vd: Tensor
    uncond_text_embeddings_vd: Tensor
    directions: list[DirectionConfig]
    direction2idx: dict[str, int]
    use_perp_neg: bool
    perp_neg_f_sb: Decay
    perp_neg_f_fsb: Decay
    perp_neg_f_fs: Decay
    perp_neg_f_sf: Decay
    prompt: str
    prompts_vd: list[str]

    def get_text_embeddings(
        self, elevation: Tensor, azimuth: Tensor, camera_distances: Tensor, view_dependent_prompting: bool = True
    ) -> Tensor:
        """Embeddings for a batch of cameras.

        Args:
            elevation, azimuth: ``[B]`` degrees. camera_distances: ``[B]`` world units.
            view_dependent_prompting: choose the prompt by direction.

        Returns:
            ``[2B, N, F]``: the B **conditional ones first**, then the B unconditional ones (the reverse
            of diffusers).
        """
        if view_dependent_prompting:
            index = self._index(elevation, azimuth, camera_distances)
            conditional, unconditional = self.text_embeddings_vd[index], self.uncond_text_embeddings_vd[index]
        else:
            count = elevation.shape[0]
            conditional = self.text_embeddings.expand(count, -1, -1)
            unconditional = self.uncond_text_embeddings.expand(count, -1, -1)
        return torch.cat([conditional, unconditional], dim=0)

    def get_text_embeddings_perp_neg(
        self, elevation: Tensor, azimuth: Tensor, camera_distances: Tensor, view_dependent_prompting: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Interpolated prompts and weighted negative ones (Perp-Neg, Armandpour et al. 2023).

        Between front and side (|azimuth| < 90) the positive prompt is a mixture of both and the
        negatives are front and side; between side and back it is a mixture of those, the negatives
        are side and front. Overhead views take their own prompt and have negatives of weight 0.

        Returns:
            ``[4B, N, F]``: B positive, B unconditional, then two negatives for each view in turn; and
            their weights ``[B, 2]``, zero or below with sensible decays.

        Raises:
            ConfigError: if view-dependent prompting is off.
        """
        if not view_dependent_prompting:
            raise ConfigError(
                "Perp-Neg needs view-dependent prompting", received=False, fix="Set view_dependent_prompting: true."
            )
        index = self._index(elevation, azimuth, camera_distances)
        side, front, back, overhead = (self.text_embeddings_vd[self.direction2idx[name]] for name in _ORDER)
        unconditional = self.uncond_text_embeddings_vd[index]

        share = shift_azimuth_deg(azimuth).abs().to(side) / 90.0
        in_front = (share < 1.0)[:, None, None]
        r = torch.where(share < 1.0, 1.0 - share, 2.0 - share)  # 1: all front (or all side), 0: all side (or all back)
        mix = r[:, None, None]
        positive = torch.where(in_front, mix * front + (1.0 - mix) * side, mix * side + (1.0 - mix) * back)
        first, second = torch.where(in_front, front, side), torch.where(in_front, side, front)
        front_weights = torch.stack([_decay(self.perp_neg_f_fs, r), _decay(self.perp_neg_f_sf, 1.0 - r)], dim=-1)
        back_weights = torch.stack([_decay(self.perp_neg_f_sb, r), _decay(self.perp_neg_f_fsb, r)], dim=-1)
        weights = -torch.where(in_front[:, :, 0], front_weights, back_weights)

        from_above = index == self.direction2idx["overhead"]
        above = from_above[:, None, None]
        positive = torch.where(above, overhead, positive)
        negatives = torch.stack([torch.where(above, unconditional, each) for each in (first, second)], dim=1)
        weights = weights.masked_fill(from_above[:, None], 0.0)
        return torch.cat([positive, unconditional, negatives.flatten(0, 1)], dim=0), weights

    def _index(self, elevation: Tensor, azimuth: Tensor, camera_distances: Tensor) -> Tensor:
        index = direction_indices(self.directions, elevation, azimuth, camera_distances)
        return index.to(self.text_embeddings_vd.device)


_ORDER = ("side", "front", "back", "overhead")


def _decay(parameters: Decay, r: Tensor) -> Tensor:
    a, b, c = parameters
    return a * torch.exp(-b * r) + c
