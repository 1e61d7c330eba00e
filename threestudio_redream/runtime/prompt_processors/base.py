"""PromptProcessor of the threestudio contract: prompts, view directions, encoding, cache."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.base import BaseObject
from threestudio_redream.runtime.prompt_processors.cache import EmbeddingCache, fingerprint_path
from threestudio_redream.runtime.prompt_processors.directions import (
    DirectionConfig,
    shift_azimuth_deg,
    view_directions,
)
from threestudio_redream.runtime.prompt_processors.output import PromptProcessorOutput

__all__ = ["DirectionConfig", "PromptProcessor", "PromptProcessorOutput", "hash_prompt", "shift_azimuth_deg"]

log = logging.getLogger("pytorch_lightning")

PROMPT_LIBRARY = Path("load/prompt_library.json")
MAX_LIBRARY_BYTES = 16 * 2**20


def hash_prompt(model: str, prompt: str) -> str:
    """File stem under which ``spawn_func`` stores an embedding: the MD5 of ``"model-prompt"``."""
    return hashlib.md5(f"{model}-{prompt}".encode(), usedforsecurity=False).hexdigest()


class PromptProcessor(BaseObject):
    """Turns the configured prompt into :class:`PromptProcessorOutput` when called.

    A subclass says how texts are encoded, in one of two ways:

    * ``encode_prompts(self, prompts)``, a method; or
    * ``spawn_func(pretrained_model_name_or_path, prompts, cache_dir)``, a static method that saves one
      tensor ``[N, F]`` per prompt as ``<hash_prompt(model, prompt)>.pt``, as upstream's subclasses do.

    Both run in this process: ``spawn`` is accepted and has no effect, since a child process could not
    import the class of an extension. Embeddings are cached below the working folder, keyed on the prompt and on
    :meth:`model_fingerprint`; override the latter if the encoder can change while its name stays.

    Keys:
        prompt: the text, or ``lib:word_word``: the entry of load/prompt_library.json with these words.
        prompt_front, prompt_side, prompt_back, prompt_overhead: replace the text of one direction.
        front_threshold, back_threshold, overhead_threshold: degrees, see :mod:`.directions`.
        negative_prompt: what the pictures should not show.
        pretrained_model_name_or_path: of the text encoder.
        spawn: accepted from upstream's configurations; without effect here.
        use_perp_neg: Perp-Neg (Armandpour et al., 2023): the other sides' prompts act as negative ones where they are
            perpendicular. perp_neg_f_sb, perp_neg_f_fsb, perp_neg_f_fs, perp_neg_f_sf: ``(a, b, c)`` of their weights
            ``a exp(-b r) + c``: side against back, front against side and back, front against side, side against front.
        view_dependent_prompt_front: "front view of X" instead of "X, front view".
        use_cache: read and write the cache.
        use_prompt_debiasing: leave words that contradict a view out of its prompt, as a masked language model finds.
            See :mod:`.debiasing`. pretrained_model_name_or_path_prompt_debiasing: that model.
            prompt_debiasing_mask_ids: which words may go, by their place; None is any.
    """

    @dataclass
    class Config(BaseObject.Config):
        prompt: str = "a hamburger"
        prompt_front: str | None = None
        prompt_side: str | None = None
        prompt_back: str | None = None
        prompt_overhead: str | None = None
        negative_prompt: str = ""
        pretrained_model_name_or_path: str = "runwayml/stable-diffusion-v1-5"
        overhead_threshold: float = 60.0
        front_threshold: float = 45.0
        back_threshold: float = 45.0
        view_dependent_prompt_front: bool = False
        use_cache: bool = True
        spawn: bool = False
        use_perp_neg: bool = False
        perp_neg_f_sb: tuple[float, float, float] = (1.0, 0.5, -0.606)
        perp_neg_f_fsb: tuple[float, float, float] = (1.0, 0.5, 0.967)
        perp_neg_f_fs: tuple[float, float, float] = (4.0, 0.5, -2.426)
        perp_neg_f_sf: tuple[float, float, float] = (4.0, 0.5, -2.426)
        use_prompt_debiasing: bool = False
        pretrained_model_name_or_path_prompt_debiasing: str = "bert-base-uncased"
        prompt_debiasing_mask_ids: list[int] | None = None

    cfg: Config

    _cache_dir = ".threestudio_cache/text_embeddings"

    def configure(self) -> None:
        self.directions = view_directions(
            self.cfg.front_threshold,
            self.cfg.back_threshold,
            self.cfg.overhead_threshold,
            words_in_front=self.cfg.view_dependent_prompt_front,
        )
        self.direction2idx = {direction.name: index for index, direction in enumerate(self.directions)}
        self.prompt = self.preprocess_prompt(self.cfg.prompt)
        if not self.prompt.strip():
            raise ConfigError(
                "The prompt is empty",
                received=self.cfg.prompt,
                fix='Say what to make: system.prompt_processor.prompt="..."',
            )
        self.negative_prompt = self.cfg.negative_prompt
        self._debiased: list[str] | None = None
        self.prompts_vd = self._view_prompts()
        self.negative_prompts_vd = [direction.negative_prompt(self.negative_prompt) for direction in self.directions]
        log.info("Prompt [%s], negative prompt [%s]", self.prompt, self.negative_prompt)
        log.info("By direction: %s", dict(zip(self.direction2idx, self.prompts_vd)))
        self.load_text_embeddings()

    def __call__(self) -> PromptProcessorOutput:
        return PromptProcessorOutput(
            text_embeddings=self.text_embeddings,
            uncond_text_embeddings=self.uncond_text_embeddings,
            text_embeddings_vd=self.text_embeddings_vd,
            uncond_text_embeddings_vd=self.uncond_text_embeddings_vd,
            directions=self.directions,
            direction2idx=self.direction2idx,
            use_perp_neg=self.cfg.use_perp_neg,
            perp_neg_f_sb=tuple(self.cfg.perp_neg_f_sb),
            perp_neg_f_fsb=tuple(self.cfg.perp_neg_f_fsb),
            perp_neg_f_fs=tuple(self.cfg.perp_neg_f_fs),
            perp_neg_f_sf=tuple(self.cfg.perp_neg_f_sf),
            prompt=self.prompt,
            prompts_vd=self.prompts_vd,
        )

    # ------------------------------------------------------------------ for subclasses
    @staticmethod
    def spawn_func(pretrained_model_name_or_path: str, prompts: list[str], cache_dir: str) -> None:
        """Save ``<hash_prompt(model, prompt)>.pt`` in ``cache_dir`` for every prompt (see the class)."""
        raise NotImplementedError

    def encode_prompts(self, prompts: list[str]) -> Tensor:
        """Embeddings ``[len(prompts), N, F]`` float. Override; by default ``spawn_func`` makes them.

        Raises:
            ConfigError: if the subclass has neither, or ``spawn_func`` leaves a prompt out.
        """
        if type(self).spawn_func is PromptProcessor.spawn_func:
            raise ConfigError(
                f"{type(self).__name__} cannot encode text",
                received=prompts,
                fix="Override encode_prompts, or the static method spawn_func.",
            )
        model = self.cfg.pretrained_model_name_or_path
        with tempfile.TemporaryDirectory(prefix="redream-text-") as folder:
            self.spawn_func(model, prompts, folder)
            return torch.stack([_read_spawned(Path(folder), model, prompt) for prompt in prompts])

    def model_fingerprint(self) -> str:
        """Text that changes whenever embeddings would. By default: the class and the model's name or local files.

        For an encoder that was tuned, return
        :func:`~threestudio_redream.runtime.prompt_processors.cache.fingerprint_tensors` of what was tuned.
        """
        model = fingerprint_path(self.cfg.pretrained_model_name_or_path)
        return f"{type(self).__module__}.{type(self).__qualname__}:{model}"

    def get_debiased_prompt(self, prompt: str) -> list[str]:
        """One prompt per direction, for ``use_prompt_debiasing``; see :mod:`.debiasing`.

        Raises:
            ConfigError: the language model cannot be loaded, or the mask does not fit the prompt.
        """
        from threestudio_redream.runtime.prompt_processors.debiasing import MaskedViews, debias

        views = [direction.name for direction in self.directions]
        probe = MaskedViews(self.cfg.pretrained_model_name_or_path_prompt_debiasing, views, self.device)
        return debias(prompt, probe, views, self.cfg.prompt_debiasing_mask_ids)

    # ------------------------------------------------------------------ embeddings
    def load_text_embeddings(self) -> None:
        """Embed the prompts, out of the cache where possible. Call again after the encoder has changed."""
        self.prepare_text_embeddings()
        self.text_embeddings = self.load_from_cache(self.prompt)[None]
        self.uncond_text_embeddings = self.load_from_cache(self.negative_prompt)[None]
        self.text_embeddings_vd = torch.stack([self.load_from_cache(prompt) for prompt in self.prompts_vd])
        self.uncond_text_embeddings_vd = torch.stack(
            [self.load_from_cache(prompt) for prompt in self.negative_prompts_vd]
        )

    def prepare_text_embeddings(self) -> None:
        """Encode what is not in the cache."""
        prompts = [self.prompt, self.negative_prompt, *self.prompts_vd, *self.negative_prompts_vd]
        prompts = list(dict.fromkeys(prompts))
        cache = EmbeddingCache(self._cache_dir, self.model_fingerprint()) if self.cfg.use_cache else None
        found = {prompt: cache.load(prompt) for prompt in prompts} if cache else {}
        self._embeddings = {prompt: tensor for prompt, tensor in found.items() if tensor is not None}
        missing = [prompt for prompt in prompts if prompt not in self._embeddings]
        if not missing:
            return
        with torch.no_grad():
            encoded = self.encode_prompts(missing)
        if encoded.ndim != 3 or encoded.shape[0] != len(missing) or not bool(torch.isfinite(encoded).all()):
            raise ConfigError(
                f"{type(self).__name__} must give finite embeddings [{len(missing)}, N, F]",
                received=tuple(encoded.shape),
                fix="Return one embedding per prompt.",
            )
        for prompt, embedding in zip(missing, encoded):
            self._embeddings[prompt] = embedding.detach()
            if cache:
                cache.store(prompt, embedding)

    def load_from_cache(self, prompt: str) -> Tensor:
        """Embedding ``[N, F]`` of a prompt that was prepared, on ``self.device``."""
        return self._embeddings[prompt].to(self.device)

    # ------------------------------------------------------------------ texts
    def preprocess_prompt(self, prompt: str) -> str:
        """Resolve ``lib:word_word``; other prompts stay as they are.

        Raises:
            ConfigError: if the library is missing or damaged, or not exactly one entry fits.
        """
        if not prompt.startswith("lib:"):
            return prompt
        words = prompt[len("lib:") :].lower().split("_")
        matches = [text for text in _prompt_library() if all(word in text.lower() for word in words)]
        if len(matches) != 1:
            raise ConfigError(
                f"{len(matches)} prompts of the library hold the words {words}",
                received=prompt,
                fix=f"Use words of one of them: {matches[:5]}." if matches else "Write the prompt itself.",
            )
        return matches[0]

    def _view_prompts(self) -> list[str]:
        given = [getattr(self.cfg, f"prompt_{direction.name}") for direction in self.directions]
        texts = self._texts_by_direction()
        return [text or direction.prompt(plain) for text, direction, plain in zip(given, self.directions, texts)]

    def _texts_by_direction(self) -> list[str]:
        """The prompt without view words, for each direction: the same, or debiased."""
        if not self.cfg.use_prompt_debiasing:
            return [self.prompt] * len(self.directions)
        given = {name: getattr(self.cfg, f"prompt_{name}") for name in self.direction2idx}
        if any(given.values()):
            raise ConfigError(
                "Prompt debiasing and prompts by direction exclude each other",
                received=given,
                fix="Remove one of them.",
            )
        if self._debiased is None:  # a language model is opened for it
            self._debiased = self.get_debiased_prompt(self.prompt)
        return self._debiased


def _read_spawned(folder: Path, model: str, prompt: str) -> Tensor:
    path = folder / f"{hash_prompt(model, prompt)}.pt"
    if not path.is_file():
        raise ConfigError(
            "spawn_func saved no embedding for a prompt", received=prompt, fix="Save <hash_prompt(model, prompt)>.pt."
        )
    # The contract fixes this format. The file is our own, just written, and weights_only runs no code.
    embedding = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    if not isinstance(embedding, Tensor):
        raise ConfigError(
            "spawn_func saved something that is not a tensor",
            received=type(embedding).__name__,
            fix="Save a tensor [N, F].",
        )
    return embedding


def _prompt_library() -> list[str]:
    fix = f"Put it at {PROMPT_LIBRARY} below the working folder, or write the prompt itself."
    try:
        if PROMPT_LIBRARY.stat().st_size > MAX_LIBRARY_BYTES:
            raise ValueError(f"it is larger than {MAX_LIBRARY_BYTES} bytes")
        entries = json.loads(PROMPT_LIBRARY.read_text("utf-8"))["dreamfusion"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as cause:
        raise ConfigError(
            f"The prompt library cannot be read: {cause}", received=str(PROMPT_LIBRARY), fix=fix
        ) from cause
    if not isinstance(entries, list):
        raise ConfigError("The prompt library is not a list of prompts", received=type(entries).__name__, fix=fix)
    return [entry for entry in entries if isinstance(entry, str)]
