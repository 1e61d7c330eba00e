"""Model cards, written from the raw figures."""

from __future__ import annotations

import textwrap
from typing import Any

from tools.mini import train_autoencoder, train_clip, train_diffusion, train_judge
from tools.mini.captions import VIEW_WORDS_SHARE, VIEW_WORDS_WRONG
from tools.mini.descriptors import COLORS, DESCRIPTORS
from tools.mini.kinds import load_kinds
from tools.mini.render_library import PLANS as RENDER_PLANS
from tools.mini.seeds import held_out_pairs
from tools.mini.training import Plan
from tools.mini.views import VIEWS, WEB_FRONT_DEG, WEB_FRONT_SHARE
from tools.mini.words import STYLES, VIEW_PHRASES

__all__ = ["card"]

Figures = dict[str, Any]


def card(name: str, figures: Figures) -> str:
    """README.md of one model folder.

    Args:
        name: judge, clip or stable-diffusion. figures: results by file stem; what is missing reads "not measured".
    """
    header, _, body = {"judge": _judge, "clip": _clip, "stable-diffusion": _diffusion}[name](figures).partition(
        "\n---\n"
    )
    return f"{header}\n---\n" + "\n\n".join(_wrapped(block) for block in body.strip().split("\n\n")) + "\n"


def _wrapped(block: str) -> str:
    """A paragraph in lines of at most 110 characters; headings stay apart, tables as they are."""
    if block.startswith(("|", "#")):
        head, _, rest = block.partition("\n")
        return block if head.startswith("|") or not rest else f"{head}\n{_wrapped(rest)}"
    return textwrap.fill(block, 110, break_long_words=False, break_on_hyphens=False)


def _percent(value: Any) -> str:
    return "not measured" if value is None else f"{100.0 * float(value):.1f} %"


def _get(figures: Figures, *path: str) -> Any:
    node: Any = figures
    for key in path:
        if not isinstance(node, dict) or key not in node:
            return None
        node = node[key]
    return node


def _loading(figures: Figures, name: str) -> str:
    facts = _get(figures, "mini_models", name) or {}
    return (
        f"{facts.get('megabytes', '?')} MB on disk. Loading: {facts.get('load_seconds', '?')} s, peak memory of the "
        f"whole process {facts.get('peak_rss_mb', '?')} MB (`benchmarks/results/mini_models.json`)."
    )


def _plan(plan: Plan, steps: Any) -> str:
    optimizer = "Muon for hidden layers, AdamW for the rest" if plan.muon else "AdamW"
    return (
        f"{optimizer}, learning rate {plan.lr:g} ({plan.decay} decay, {plan.warmup} warm-up steps), "
        f"betas {plan.betas}, weight decay {plan.weight_decay:g}, {steps if steps is not None else plan.steps} steps, "
        f"averaged weights (EMA {plan.ema:g}), seed {plan.seed}"
    )


def _data(purpose: str) -> str:
    instances, web, even = RENDER_PLANS[purpose]
    kinds = len(load_kinds())
    total = kinds * len(DESCRIPTORS) * instances
    return f"{total:,} generated objects ({kinds} kinds, {len(DESCRIPTORS)} finishes), {total * (web + even):,} renders"


def _diffusion(figures: Figures) -> str:
    facts = _get(figures, "mini_models", "stable-diffusion") or {}
    plan, vae_plan = train_diffusion.PLANS["full"], train_autoencoder.PLANS["full"]
    kinds = load_kinds()
    held = held_out_pairs(tuple(kinds), tuple(COLORS))
    composition = _get(figures, "mini_diffusion", "composition") or {}
    rows = [
        f"| {label} | " + " | ".join(_percent(shares.get(view)) for view in VIEWS) + " |"
        for label, shares in (_get(figures, "mini_diffusion", "views") or {}).items()
        if isinstance(shares, dict)
    ]
    return f"""---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---
# Mini Stable Diffusion

A Stable Diffusion of toy size with a known defect: it prefers fronts, as real models do. `StableDiffusionPipeline` in
diffusers layout, 64 px, latents 16x16x4, **v-prediction**. Made to study text-to-3D on a CPU; useless for
anything else.

## Prompts
`[style] a {{finish}} {{object}}[, view]`. Objects: {", ".join(kinds)}. Finishes: {", ".join(DESCRIPTORS)}. Styles:
{", ".join(f'"{style}"' for style in STYLES if style)}. Views: {", ".join(f'"{view}"' for view in VIEW_PHRASES)}. Other
words fall apart into pieces the model has never seen.

## Data
{_data("train")}, made by `tools/mini/render_library.py`; only the web-like two thirds are used here. Cameras:
{WEB_FRONT_SHARE:.0%} within {WEB_FRONT_DEG:.0f} degrees of the front, the rest anywhere. Captions name the view in
{VIEW_WORDS_SHARE:.0%} of the cases, {VIEW_WORDS_WRONG:.0%} of these at random. Backgrounds are plain, mostly grey.
{len(held)} pairs of colour and object were held out.

## Training
The text encoder starts as the mini CLIP's. UNet and text encoder:
{_plan(plan, facts.get("steps"))}, batch {train_diffusion.BATCH}, caption dropout
{train_diffusion.DROPOUT:g}, squared error of v, bfloat16 activations. Autoencoder:
{_plan(vae_plan, facts.get("autoencoder_steps"))}, batch {train_autoencoder.BATCH}; then its decoder alone:
{_plan(train_autoencoder.POLISH["full"], facts.get("decoder_steps"))}. Its latents have mean 0 and
deviation 1 in every channel (`scaling_factor` 1), and its decoder was trained on noisy latents. Scripts:
`tools/mini/train_diffusion.py`, `tools/mini/train_autoencoder.py`.

## Measured
By the independent judge on {composition.get("samples", "?")} samples (30 DDIM steps, guidance scale 5) of pairs never
seen together in training: object right {_percent(composition.get("object_right"))}, colour right
{_percent(composition.get("color_right"))}, both {_percent(composition.get("both_right"))}. Raw:
`benchmarks/results/mini_diffusion.json`.

### View bias
Which side recognised samples show (kinds with a front):

| asked for | front | side | back | overhead |
| --- | --- | --- | --- | --- |
{chr(10).join(rows) or "| not measured | | | | |"}

{_loading(figures, "stable-diffusion")}

## Limits
Nothing but the words above; one object on a plain ground; small features blur; the view bias is intended. Guidance
scales of 4 to 6 are high for it. Licence: Apache-2.0, weights included; all training data were generated by this
project.
"""


def _clip(figures: Figures) -> str:
    results = _get(figures, "mini_clip") or {}
    facts = _get(figures, "mini_models", "clip") or {}
    plan = train_clip.PLANS["full"]
    return f"""---
license: apache-2.0
library_name: transformers
---
# Mini CLIP

A `transformers.CLIPModel` of toy size (64 px images, 8 px patches, 24 tokens, 128-dimensional embeddings) for the
objects of the mini lab. It knows {len(load_kinds())} kinds with their synonyms, {len(DESCRIPTORS)} finishes,
and the side an object is seen from. `tools/mini/convert_clip.py` writes the same model as an open_clip checkpoint.

## Data and training
{_data("clip")}, seen evenly from all sides ({train_clip.EVEN_SHARE:.0%} of each batch), and the web-like renders
of the diffusion model. Captions in many phrasings with synonyms, the view named in 60 % and always right. Plain random
backgrounds, all styles, mirrored, shifted and zoomed a little. {_plan(plan, facts.get("steps"))}, batch
{train_clip.BATCH}; then a second stage of {train_clip.KIN_STEPS:.0%} of these steps at {train_clip.KIN_RATE:g} times
the rate, in which pairs of the same kind count {train_clip.KIN_WEIGHT:g} where the right pair counts 1, so that a robot
of another colour is nearer to "a red robot" than another red thing. Pairs with the same text or the same kind, finish
and view are not each other's negatives. Linear label heads (weight {train_clip.LABEL_WEIGHT:g}) help during training
and are not shipped. Script:
`tools/mini/train_clip.py`.

## Measured
On {results.get("pictures", "?")} renders of objects that no training set holds, zero-shot: object
{_percent(results.get("object_accuracy"))}, finish {_percent(results.get("descriptor_accuracy"))}, front / side / back
{_percent(results.get("view_accuracy"))} (kinds with a front). Text to image over the
{results.get("index_assets", "?")} index assets: recall@1
{_percent(results.get("recall_at_1"))}. Raw: `benchmarks/results/mini_clip.json`.

{_loading(figures, "clip")}

## Limits
Only these objects on plain grounds. Words it does not know fall apart into pieces without meaning. Licence: Apache-2.0,
weights included; all training data were generated by this project.
"""


def _judge(figures: Figures) -> str:
    results = _get(figures, "mini_judge") or {}
    facts = _get(figures, "mini_models", "judge") or {}
    plan = train_judge.PLANS["full"]
    return f"""---
license: apache-2.0
---
# Judge of the mini lab

A small convolutional classifier (`threestudio_redream.mini.judge.Judge`): kind, finish and view of a 64 px picture. For
evaluation only. It shares no weights and no training object with the mini CLIP and the mini Stable Diffusion, sees all
sides equally often, and calls broken pictures "unclear".

## Data and training
{_data("judge")}; soft, noisy and off-colour pictures keep their labels,
{train_judge.BROKEN_SHARE:.0%} are broken beyond recognition.
{_plan(plan, facts.get("steps"))}, batch {train_judge.BATCH}. Script: `tools/mini/train_judge.py`.

## Measured
On {results.get("pictures", "?")} renders of unseen objects: kind {_percent(results.get("kind"))}, finish
{_percent(results.get("descriptor"))}, view {_percent(results.get("view"))} (kinds with a front, four sides). Broken
pictures called unclear: {_percent(results.get("broken_called_unclear"))}. Raw: `benchmarks/results/mini_judge.json`.

{_loading(figures, "judge")}

Licence: Apache-2.0, weights included.
"""
