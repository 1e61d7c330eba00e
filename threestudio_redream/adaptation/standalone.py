"""Adaptation without distillation: from a prompt or 3D files to a folder that any diffusers pipeline can load.

``redream adapt`` is its command. A folder holds the LoRA and the view tokens (:mod:`.files`), ``README.md`` with what
was measured and how to use them, ``ATTRIBUTION.md``, and below ``resume/`` what an interrupted run goes on from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from threestudio_redream.adaptation.files import LORA_FILE, REPORT, TOKEN_FOLDER, save_adaptation
from threestudio_redream.adaptation.probe import view_accuracy
from threestudio_redream.adaptation.references import ReferenceConfig, References, render_references
from threestudio_redream.adaptation.training import NAME, AdaptationConfig, adapt
from threestudio_redream.adaptation.view_tokens import VIEWS, TokenizedEncoder, view_phrase
from threestudio_redream.assets import Asset, load_asset, normalise
from threestudio_redream.guidance.adapters import SwitchedUNet
from threestudio_redream.guidance.latent_diffusion import LatentDiffusion
from threestudio_redream.guidance.models import load_component, resolve_model
from threestudio_redream.retrieval.curation.attribution import attribution_markdown, write_attribution
from threestudio_redream.retrieval.errors import RetrievalError
from threestudio_redream.retrieval.retrieve import RetrievalConfig, retrieve
from threestudio_redream.retrieval.sources.captions import clean_text
from threestudio_redream.retrieval.types import AssetRecord
from threestudio_redream.runtime.files import atomic_write_text
from threestudio_redream.runtime.prompt_processors.cache import fingerprint_path

__all__ = ["AdaptedModel", "Subject", "adapt_model", "subjects_from_files", "subjects_from_index"]

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Subject:
    """An asset to adapt to: in the canonical frame with its front at +x, and its row of an index."""

    asset: Asset
    record: AssetRecord


@dataclass(frozen=True)
class AdaptedModel:
    """What :func:`adapt_model` did.

    Attributes:
        folder: where it is. steps: of training. loss: mean of the last steps.
        before, after: view accuracy, see :func:`~threestudio_redream.adaptation.probe.view_accuracy`.
    """

    folder: Path
    steps: int
    loss: float
    before: float
    after: float
    subjects: tuple[Subject, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        files = [LORA_FILE, REPORT, *(f"{TOKEN_FOLDER}/{view}.safetensors" for view in VIEWS)]
        return {
            "folder": str(self.folder),
            "steps": self.steps,
            "loss": self.loss,
            "view_accuracy": {"before": self.before, "after": self.after},
            "assets": [subject.record.asset_id for subject in self.subjects],
            "files": [name for name in files if (self.folder / name).is_file()],
        }


def subjects_from_index(prompt: str, cfg: RetrievalConfig) -> list[Subject]:
    """The assets of an index that resemble a prompt and have a known front.

    Raises:
        RetrievalError: there is none.
    """
    found = retrieve(prompt, cfg)
    similar = [reference for reference in found.references if reference.reliability > 0.0]
    if not similar:
        raise RetrievalError(
            f"no asset of the index resembles the prompt: the best score is below {found.threshold:.3f}",
            received=prompt,
            fix="Give 3D files with --asset, or another index",
        )
    known = [reference for reference in similar if reference.front_known]
    if not known:
        raise RetrievalError(
            "no asset that resembles the prompt has a known front, so its views have no names",
            received=[reference.record.asset_id for reference in similar],
            fix="State the front in the index's captions table, or give a 3D file with --asset and --front",
        )
    return [Subject(reference.asset, reference.record) for reference in known]


def subjects_from_files(
    files: Sequence[Path], captions: Sequence[str], *, up: str | None = None, front: str | None = None
) -> list[Subject]:
    """3D files as subjects; nobody states their author or licence.

    Args:
        captions: one for each. up, front: axes of the files, see :func:`~threestudio_redream.assets.normalise`.
    """
    axes = {key: value for key, value in (("up", up), ("front", front)) if value}
    subjects = []
    for file, caption in zip(files, captions, strict=True):
        asset = normalise(load_asset(file), **axes)  # type: ignore[arg-type]  # checked there
        record = AssetRecord(
            asset_id=file.stem,
            name=file.stem,
            caption=caption,
            caption_source="user",
            sha256=asset.sha256 or "",
            n_faces=len(asset.faces),
            front_deg=0.0,
        )
        subjects.append(Subject(asset, record))
    return subjects


def adapt_model(
    subjects: Sequence[Subject],
    model_name: str,
    folder: Path,
    views: ReferenceConfig,
    cfg: AdaptationConfig,
    *,
    prompt: str = "",
    device: torch.device | str = "cpu",
    dtype: str = "float32",
    progress: Progress | None = None,
) -> AdaptedModel:
    """Adapt a model to subjects and write the folder. A run that was stopped goes on, and ends in the same bits.

    Args:
        model_name: as of :func:`~threestudio_redream.guidance.models.resolve_model`. prompt: for the records only.
        progress: see :func:`~threestudio_redream.adaptation.training.adapt`.

    Raises:
        CheckpointError: the folder holds a part of another run.
    """
    model = LatentDiffusion.load(model_name, device=device, dtype=dtype)
    tokenizer = load_component(model_name, "tokenizer", "transformers", "CLIPTokenizer")
    text_model = load_component(model_name, "text_encoder", "transformers", "CLIPTextModel", torch_dtype=torch.float32)
    encoder = TokenizedEncoder(tokenizer, text_model).to(device)
    switched = SwitchedUNet(model.unet)
    switched.add(NAME, rank=cfg.rank, alpha=cfg.alpha, trainable=False, seed=cfg.seed)
    assets, captions = [s.asset for s in subjects], [s.record.caption for s in subjects]
    renders = render_references(assets, captions, views, seed=cfg.seed)
    held_out = render_references(assets, captions, views, seed=cfg.seed + 1_000_003)
    before = _accuracy(model, held_out, encoder, learned=False)
    found = adapt(
        model,
        switched,
        encoder,
        renders,
        cfg,
        folder=folder / "resume",
        held_out=held_out,
        facts={"model": fingerprint_path(resolve_model(model_name)), "dtype": dtype},
        progress=progress,
    )
    with switched.using(NAME):
        after = _accuracy(model, held_out, encoder, learned=cfg.learn_tokens)
    last = found.history[-1]
    result = AdaptedModel(folder, int(last["step"]), float(last["loss"]), before, after, tuple(subjects))
    facts = {
        "model": model_name,
        "prompt": prompt,
        "assets": [subject.record.asset_id for subject in subjects],
        "captions": captions,
        "view_accuracy": {"before": before, "after": after},
        "references": asdict(views),
        "adaptation": asdict(cfg),
    }
    save_adaptation(found, folder, rank=cfg.rank, alpha=cfg.alpha, facts=facts)
    records = [subject.record for subject in subjects]
    write_attribution(folder, records)
    atomic_write_text(folder / "README.md", _card(result, model_name, prompt, cfg))
    return result


def _accuracy(model: LatentDiffusion, references: References, encoder: TokenizedEncoder, *, learned: bool) -> float:
    """View accuracy with plain view words, or with the learned tokens."""

    def embed(captions: Sequence[str], view: str) -> torch.Tensor:
        return encoder([view_phrase(text, view) if learned else f"{text}, {view} view" for text in captions])

    return view_accuracy(model, references, embed)


def _card(result: AdaptedModel, model_name: str, prompt: str, cfg: AdaptationConfig) -> str:
    """``README.md`` of the folder, a model card as the hub wants it."""
    local = Path(model_name).expanduser().is_dir()
    name = Path(model_name).expanduser().name if local else model_name
    head = ["---", "library_name: diffusers", "pipeline_tag: text-to-image"]
    if not local and "/" in model_name:
        head.append(f"base_model: {model_name}")
    head += ["tags: [lora, textual_inversion, threestudio-redream]", "---", ""]
    subject = clean_text(result.subjects[0].record.caption, 200)
    example = view_phrase(subject, "back") if cfg.learn_tokens else f"{subject}, back view"
    code = [
        "pipeline = diffusers.StableDiffusionPipeline.from_pretrained(MODEL)",
        f'pipeline.load_lora_weights(FOLDER, weight_name="{LORA_FILE}")',
    ]
    if cfg.learn_tokens:
        code += [
            f"for view in {VIEWS}:",
            f'    pipeline.load_textual_inversion(f"{{FOLDER}}/{TOKEN_FOLDER}/{{view}}.safetensors")',
        ]
    code.append(f"pipeline({example!r})")
    made = f"`{name}`, adapted by `redream adapt`" + (f" for the prompt {clean_text(prompt, 200)!r}" if prompt else "")
    parts = f"a LoRA of rank {cfg.rank}{' and four view tokens' if cfg.learn_tokens else ''}"
    lines = [
        *head,
        "# View adapter",
        "",
        f"{made}: {parts}, trained for {result.steps} steps",
        "on renders of the 3D assets below, under their own captions. It corrects from which side the model believes",
        "it sees a thing, and nothing else.",
        "",
        "```python",
        *code,
        "```",
        "",
        "Renders whose own view word explains them best, all views counting equally:",
        f"{result.before:.0%} before, {result.after:.0%} after. All settings are in `{REPORT}`.",
        "",
        "## Attribution",
        "",
        attribution_markdown([each.record for each in result.subjects]).split("\n", 1)[1].strip(),
        "",
    ]
    return "\n".join(lines)
