"""From which timestep should the view adapter act? Asked in 2D, where an answer takes seconds.

    python benchmarks/adapter_gate.py [--prompts "a blue backpack" ...]

Renders of the back of the first retrieved asset are noised to timestep t and denoised again (SDEdit, Meng et al., 2022)
under the prompt with the back token, by the mini model: alone, and with the adapter of ``redream.yaml`` acting from
several timesteps up. The judge says what came out: how often a front, whether the kind, whether the finish of the
prompt. The prompts are none of the mini study's. Raw figures go to ``benchmarks/results/adapter_gate.json``.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _common import ROOT, environment, write_results
from torch import Tensor

from threestudio_redream.adaptation.references import ReferenceConfig, References, render_references
from threestudio_redream.adaptation.training import NAME, AdaptationConfig, adapt
from threestudio_redream.adaptation.view_tokens import TokenizedEncoder, view_phrase
from threestudio_redream.guidance.adapters import SwitchedUNet
from threestudio_redream.guidance.latent_diffusion import LatentDiffusion
from threestudio_redream.guidance.models import load_component, resolve_model
from threestudio_redream.guidance.redream import adapter_gate
from threestudio_redream.mini.judge import Judge
from threestudio_redream.retrieval.retrieve import RetrievalConfig, retrieve
from threestudio_redream.runtime import load_config

log = logging.getLogger("adapter-gate")

PROMPTS = ("a blue backpack", "a red camera", "a green astronaut", "a blue rabbit")
STARTS = (450, 600, 800)
#: Timesteps between which the adapter fades in; beyond the schedule's end it never acts.
GATES = {"never": (1001, 1001), "from 600": (400, 600), "from 200": (100, 200)}
BACK, COUNT, CALLS, VIEW_SCALE = 2, 16, 12, 4.0


@torch.no_grad()
def edited(
    model: LatentDiffusion,
    unet: SwitchedUNet,
    texts: Tensor,
    clean: Tensor,
    start: int,
    gate: tuple[int, int],
    cfg: Any,
) -> Tensor:
    """Latents ``[B, 4, h, w]`` noised to ``start`` and denoised in ``CALLS`` steps of DDIM.

    Args:
        texts: ``[3 B, L, C]``: the prompt with its view, the prompt, the empty one.
    """
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
    steps = np.linspace(start, 20, CALLS).round().astype(int)
    now = model.add_noise(clean, noise, torch.full((len(clean),), int(steps[0])))
    for i, step in enumerate(steps):
        at = torch.full((len(clean),), int(step))
        strength = float(adapter_gate(at[:1], *gate)[0])
        with unet.using(NAME, scale=strength) if strength else nullcontext():
            sided, plain, empty = model.predict(now.repeat(3, 1, 1, 1), at.repeat(3), texts).chunk(3)
        said = model.read(empty + cfg.guidance_scale * (plain - empty) + VIEW_SCALE * (sided - plain), now, at)
        if i + 1 == len(steps):
            return said.clean
        alpha, sigma = model.alpha_sigma(torch.full((len(clean),), int(steps[i + 1])))
        now = alpha * said.clean + sigma * said.noise
    raise AssertionError("there are steps")


@dataclass(frozen=True)
class Adapted:
    """The mini model with the adapter and the view tokens of a prompt's assets.

    Attributes:
        renders: of the assets. encoder: of texts, with the learned view tokens.
    """

    model: LatentDiffusion
    unet: SwitchedUNet
    encoder: TokenizedEncoder
    renders: References


def adapted_mini(prompt: str, system: Any) -> Adapted:
    """Retrieve and adapt as a run with this ``system`` block does."""
    index = RetrievalConfig(index=str(ROOT / system.retrieval.index), count=system.retrieval.count)
    found = retrieve(prompt, index).references
    views = ReferenceConfig(**system.references)
    renders = render_references([one.asset for one in found], [one.record.caption for one in found], views, seed=0)
    model, name = LatentDiffusion.load("mini"), resolve_model("mini")
    unet, settings = SwitchedUNet(model.unet), AdaptationConfig(**{**system.adaptation, "probe_every": 0})
    unet.add(NAME, rank=settings.rank, alpha=settings.alpha, trainable=False, seed=1)
    encoder = TokenizedEncoder(
        load_component(name, "tokenizer", "transformers", "CLIPTokenizer"),
        load_component(name, "text_encoder", "transformers", "CLIPTextModel", torch_dtype=torch.float32),
    )
    adapt(model, unet, encoder, renders, settings)
    return Adapted(model, unet, encoder, renders)


def probe(prompt: str, judge: Judge, cfg: Any) -> list[dict[str, Any]]:
    """One row for each start and gate."""
    system = cfg.system
    made = adapted_mini(prompt, system)
    model, renders = made.model, made.renders
    rows = np.flatnonzero((renders.view == BACK) & (renders.asset == 0))[:COUNT]
    with torch.no_grad():
        clean = model.encode(renders.images(rows, torch.full((len(rows), 1, 1, 1), 0.6)))
        texts = [made.encoder([text]).expand(len(rows), -1, -1) for text in (view_phrase(prompt, "back"), prompt, "")]
    finish, kind = (judge.descriptors.index(prompt.split()[-2]), judge.kinds.index(prompt.split()[-1]))
    results = []
    for start in STARTS:
        for gate in GATES:
            latents = edited(model, made.unet, torch.cat(texts), clean, start, GATES[gate], system.guidance)
            verdict = judge.judge(model.decode(latents))
            results.append(
                {
                    "prompt": prompt,
                    "start": start,
                    "adapter": gate,
                    "fronts": float(verdict.view[:, 0].mean()),
                    "kind": float((verdict.kind.argmax(1) == kind).float().mean()),
                    "finish": float(verdict.descriptor[:, finish].mean()),
                }
            )
            log.info("%s", results[-1])
    return results


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", nargs="+", default=list(PROMPTS))
    prompts = parser.parse_args(argv).prompts
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    judge, cfg = Judge.load(), load_config(str(ROOT / "custom_configs" / "redream.yaml"))
    rows = [row for prompt in prompts for row in probe(prompt, judge, cfg)]
    write_results("adapter_gate", {"environment": environment(("torch", "diffusers", "peft")), "rows": rows})


if __name__ == "__main__":
    main()
