"""Light adaptation of a 2D prior to the retrieved assets (Seo et al., 2024, Eq. 5).

    min over omega, e:  E || model_{omega}(alpha_t z + sigma_t eps; t, caption_n + e_view) - target ||^2

z are latents of renders of the assets, under the assets' own captions, so that the user's words keep their meaning;
omega is a LoRA of the UNet's attention, e are the view tokens that all captions share.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from threestudio_redream.adaptation.probe import view_accuracy
from threestudio_redream.adaptation.references import References
from threestudio_redream.adaptation.view_tokens import VIEWS, TokenizedEncoder, view_phrase
from threestudio_redream.errors import CheckpointError, ConfigError
from threestudio_redream.guidance.adapters import SwitchedUNet
from threestudio_redream.guidance.half_precision import GradientScale
from threestudio_redream.guidance.latent_diffusion import LatentDiffusion
from threestudio_redream.guidance.sampling import sample_latents
from threestudio_redream.runtime.checkpoint import read_checkpoint, write_checkpoint
from threestudio_redream.runtime.rng import step_generator

__all__ = ["Adaptation", "AdaptationConfig", "adapt"]

log = logging.getLogger("pytorch_lightning")

STREAM = 5
NAME = "views"


@dataclass
class AdaptationConfig:
    """How the prior is adapted. Defaults are for the mini model; see the full-scale configuration for Stable Diffusion.

    Attributes:
        steps, batch_size: of optimisation. lr: of the LoRA. token_lr: of the view tokens. weight_decay, warmup: AdamW,
            and steps of linear growth of both rates.
        rank, alpha: of the LoRA. learn_tokens: train the view tokens, too; else view words stay words.
        caption_dropout: share of pictures without caption.
        min_step_percent, max_step_percent: range of timesteps, as shares of the schedule. Which side is shown is
            decided where there is much noise: training there alone teaches views in fewer steps, and no texture.
        preservation: share of a batch that are samples of the unadapted model under the captions without view words.
            preservation_images: how many of them are made first.
        probe_every: steps between two measurements of the view accuracy, 0 for none. probe_target: stop once it is
            reached.
        save_every: steps between two checkpoints, 0 for one at the end. seed: of every draw.
    """

    steps: int = 200
    batch_size: int = 16
    lr: float = 1e-3
    token_lr: float = 3e-3
    weight_decay: float = 1e-2
    warmup: int = 20
    rank: int = 4
    alpha: float | None = None
    learn_tokens: bool = True
    caption_dropout: float = 0.1
    min_step_percent: float = 0.0
    max_step_percent: float = 1.0
    preservation: float = 0.0
    preservation_images: int = 16
    probe_every: int = 50
    probe_target: float = 1.0
    save_every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ConfigError(
                "Adaptation needs steps and a batch size of 1 or more",
                received=(self.steps, self.batch_size),
                fix="Switch it off with adaptation.enabled: false.",
            )
        for name in ("save_every", "probe_every", "warmup", "preservation_images"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"adaptation.{name} must be 0 or more", received=getattr(self, name), fix="0 is none."
                )
        if not 0.0 <= self.min_step_percent < self.max_step_percent <= 1.0:
            raise ConfigError(
                "adaptation.min_step_percent and max_step_percent must be in order and in [0, 1]",
                received=(self.min_step_percent, self.max_step_percent),
                fix="0 and 1 are all timesteps.",
            )
        shares = {
            "caption_dropout": "0 keeps every caption, 0.1 is usual.",
            "preservation": "0 is off, 0.25 makes a quarter of a batch samples of the unadapted model.",
            "probe_target": "1 trains to the last step, 0.95 stops when 95 % of the views are told.",
        }
        for name, advice in shares.items():
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"adaptation.{name} must be in [0, 1]", received=getattr(self, name), fix=advice)


@dataclass(frozen=True)
class Adaptation:
    """What was learnt.

    Attributes:
        lora: parameters of the adapter ``views`` by name. vectors: ``[4, F]`` of the view tokens, or None.
        history: rows of ``step``, ``loss`` (mean since the last row) and ``view_accuracy`` (None unless measured).
    """

    lora: dict[str, Tensor]
    vectors: Tensor | None
    history: list[dict[str, Any]] = field(default_factory=list)


def adapt(
    model: LatentDiffusion,
    switched: SwitchedUNet,
    encoder: TokenizedEncoder,
    references: References,
    cfg: AdaptationConfig,
    *,
    folder: Path | None = None,
    held_out: References | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Adaptation:
    """Train the adapter ``views`` of ``switched`` and the view tokens of ``encoder``.

    Args:
        switched: holds ``model.unet`` and an adapter ``views`` as it was added. references: what is learnt.
        folder: for checkpoints; a run that was stopped goes on there and ends in the same bits.
        held_out: renders for the probe; without them it looks at ``references``.
        facts: plain values that decide the result beside the rest, as the model's fingerprint; a checkpoint belongs to
            a run with the same ones.
        progress: called after every step with the steps done, all steps, and the seconds that are left.

    Returns:
        copies of what was trained; the modules hold the same values.

    Raises:
        CheckpointError: the folder's checkpoint belongs to another run.
    """
    run = _Run(model, switched, encoder, references, cfg, folder, held_out or references, dict(facts or {}))
    return run.train(progress)


class _Run:
    def __init__(
        self,
        model: LatentDiffusion,
        switched: SwitchedUNet,
        encoder: TokenizedEncoder,
        references: References,
        cfg: AdaptationConfig,
        folder: Path | None,
        held_out: References,
        facts: dict[str, Any],
    ) -> None:
        self.model, self.switched, self.encoder = model, switched, encoder
        self.references, self.cfg, self.held_out, self.facts = references, cfg, held_out, facts
        self.path = None if folder is None else folder / "adaptation-state.safetensors"
        self.device = model.alphas_cumprod.device
        self.lora = switched.parameters(NAME)
        groups: list[dict[str, Any]] = [{"params": list(self.lora.values()), "rate": cfg.lr}]
        if cfg.learn_tokens:
            # No decay: 0 is not a word.
            groups.append({"params": [encoder.vectors], "rate": cfg.token_lr, "weight_decay": 0.0})
        self.optimizer = torch.optim.AdamW(groups, lr=cfg.lr, weight_decay=cfg.weight_decay)
        self.step, self.done = 0, False
        self.history: list[dict[str, Any]] = []
        self._sum, self._count = 0.0, 0

    def train(self, progress: Callable[[int, int, float], None] | None) -> Adaptation:
        cfg = self.cfg
        trained_before = self.switched.train_only(NAME)
        self.encoder.vectors.requires_grad_(cfg.learn_tokens)
        learning = [*self.lora.values(), *([self.encoder.vectors] if cfg.learn_tokens else [])]
        self._scale = GradientScale(self.model.unet.dtype, learning)
        self._plain = self._preserved()
        self._resume()
        started, first = time.perf_counter(), self.step
        while self.step < cfg.steps and not self.done:
            for group in self.optimizer.param_groups:
                group["lr"] = group["rate"] * min(1.0, (self.step + 1) / max(cfg.warmup, 1))
            loss = self._loss(step_generator(cfg.seed, self.step, STREAM))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self._scale.arrived():
                self.optimizer.step()
            self.step += 1
            self._sum, self._count = self._sum + float(loss.detach()), self._count + 1
            last = self.step == cfg.steps
            if last or (cfg.probe_every and self.step % cfg.probe_every == 0):
                self._report((time.perf_counter() - started) / (self.step - first))
            if progress is not None:
                pace = (time.perf_counter() - started) / (self.step - first)
                progress(self.step, cfg.steps, 0.0 if self.done else (cfg.steps - self.step) * pace)
            if self.path is not None and (last or self.done or (cfg.save_every and self.step % cfg.save_every == 0)):
                self._save()
        self.optimizer.zero_grad(set_to_none=True)
        self._scale.remove()
        self.switched.train_only(*trained_before)
        vectors = self.encoder.vectors.detach().clone() if cfg.learn_tokens else None
        return Adaptation({name: value.detach().clone() for name, value in self.lora.items()}, vectors, self.history)

    def _loss(self, generator: torch.Generator) -> Tensor:
        cfg, model = self.cfg, self.model
        images, rows = self.references.draw(cfg.batch_size, generator)
        with torch.no_grad():
            clean = model.encode(model.resized(images.to(self.device)))
        captions = [self.references.captions[i] for i in self.references.asset[rows]]
        texts = [self._text(caption, VIEWS[view]) for caption, view in zip(captions, self.references.view[rows])]
        kept = torch.rand(cfg.batch_size, 2, generator=generator)
        if self._plain is not None:
            which = torch.randint(0, len(self._plain[0]), (cfg.batch_size,), generator=generator)
            for i in torch.nonzero(kept[:, 1] < cfg.preservation).flatten().tolist():
                clean[i], texts[i] = self._plain[0][which[i]], self._plain[1][int(which[i])]
        texts = ["" if share < cfg.caption_dropout else text for share, text in zip(kept[:, 0].tolist(), texts)]
        low, high = (int(share * len(model.alphas_cumprod)) for share in (cfg.min_step_percent, cfg.max_step_percent))
        steps = torch.randint(low, high, (cfg.batch_size,), generator=generator).to(self.device)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        noisy = model.add_noise(clean, noise, steps)
        with self.switched.using(NAME):
            output = self._scale(model.predict(noisy, steps, self.encoder(texts)))
        return functional.mse_loss(output, model.training_target(clean, noise, steps))

    def _text(self, caption: str, view: str) -> str:
        return view_phrase(caption, view) if self.cfg.learn_tokens else f"{caption}, {view} view"

    def _preserved(self) -> tuple[Tensor, list[str]] | None:
        """Samples of the unadapted model, and their captions."""
        if not self.cfg.preservation:
            return None
        generator = step_generator(self.cfg.seed, 0, STREAM + 1)
        names = self.references.captions
        captions = [names[i % len(names)] for i in range(self.cfg.preservation_images)]
        side = self.model.image_size() // self.model.downsampling
        samples = []
        with torch.no_grad():
            empty = self.encoder([""])
            for start in range(0, len(captions), self.cfg.batch_size):
                part = captions[start : start + self.cfg.batch_size]
                noise = torch.randn(len(part), 4, side, side, generator=generator).to(self.device)
                embeddings = torch.cat([self.encoder(part), empty.expand(len(part), -1, -1)])
                samples.append(sample_latents(self.model, embeddings, noise))
        return torch.cat(samples), captions

    def _report(self, seconds: float) -> None:
        embed: Callable[[Sequence[str], str], Tensor] = lambda captions, view: self.encoder(  # noqa: E731
            [self._text(caption, view) for caption in captions]
        )
        accuracy = None
        if self.cfg.probe_every:
            with self.switched.using(NAME):
                accuracy = view_accuracy(self.model, self.held_out, embed, seed=self.cfg.seed)
            self.done = accuracy >= self.cfg.probe_target
        row = {"step": self.step, "loss": self._sum / max(self._count, 1), "view_accuracy": accuracy}
        self.history.append(row)
        self._sum, self._count = 0.0, 0
        left = (self.cfg.steps - self.step) * seconds
        shown = "" if accuracy is None else f", views told apart {accuracy:.0%}"
        log.info("Adaptation %d/%d: loss %.4f%s, %.0f s left", self.step, self.cfg.steps, row["loss"], shown, left)

    # ------------------------------------------------------------------ resume
    def _identity(self) -> dict[str, Any]:
        shown = self.references
        digest = hashlib.sha256(shown.rgba.tobytes() + shown.view.tobytes() + shown.asset.tobytes()).hexdigest()
        return {
            "config": asdict(self.cfg),
            "captions": list(shown.captions),
            "renders": digest,
            "background_range": list(shown.background_range),
            "facts": self.facts,
        }

    def _save(self) -> None:
        assert self.path is not None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        tree = {
            "identity": self._identity(),
            "step": self.step,
            "done": self.done,
            "history": self.history,
            "sums": [self._sum, self._count],
            "lora": {name: value.detach() for name, value in self.lora.items()},
            "vectors": self.encoder.vectors.detach(),
            "optimizer": self.optimizer.state_dict(),
        }
        write_checkpoint(self.path, tree)

    def _resume(self) -> None:
        if self.path is None or not self.path.is_file():
            return
        tree = read_checkpoint(self.path)
        if tree["identity"] != self._identity():
            raise CheckpointError(
                "The adaptation in this folder is another one",
                received=str(self.path),
                fix="Remove the file to adapt anew.",
            )
        self.switched.load(NAME, tree["lora"])
        with torch.no_grad():
            self.encoder.vectors.copy_(tree["vectors"])
        self.optimizer.load_state_dict(tree["optimizer"])
        self.step, self.done, self.history = int(tree["step"]), bool(tree["done"]), list(tree["history"])
        self._sum, self._count = float(tree["sums"][0]), int(tree["sums"][1])
        log.info("Adaptation: going on at step %d", self.step)
