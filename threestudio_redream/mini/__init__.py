"""The mini lab's models: small Stable Diffusion, small CLIP and an independent judge, trained by this project.

Importing this package loads nothing. The weights lie beside it as ordinary model folders:

>>> from diffusers import StableDiffusionPipeline
>>> from threestudio_redream.mini import DIFFUSION
>>> pipeline = StableDiffusionPipeline.from_pretrained(DIFFUSION)  # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["CLIP", "DIFFUSION", "JUDGE"]

_HERE = Path(__file__).resolve().parent

#: A ``StableDiffusionPipeline`` folder: 64 px pictures, v-prediction, with a known view bias.
DIFFUSION = _HERE / "stable-diffusion"
#: A ``transformers.CLIPModel`` folder with tokenizer and preprocessing.
CLIP = _HERE / "clip"
#: Weights of :class:`threestudio_redream.mini.judge.Judge`; for evaluation only, never for training.
JUDGE = _HERE / "judge"
