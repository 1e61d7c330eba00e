"""Which diffusion model a configuration means, and how its parts are opened.

One value, ``pretrained_model_name_or_path``, names the model for every component: ``mini`` (the model that ships with
the project), a short name of :mod:`threestudio_redream.guidance.registry`, a hub id, or a folder in diffusers layout.
Weights are read from safetensors only.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from threestudio_redream.errors import ConfigError
from threestudio_redream.guidance.registry import KNOWN, find_known, sources
from threestudio_redream.hub import HubNotFoundError, cached, fetch_first
from threestudio_redream.retrieval.encoders.weights import json_file

__all__ = ["MINI", "PARTS", "load_component", "missing_files", "model_folder", "resolve_model"]

log = logging.getLogger("pytorch_lightning")

MINI = "mini"


def _weights(stem: str) -> tuple[str, ...]:
    return (f"{stem}.safetensors", f"{stem}-*.safetensors", f"{stem}.safetensors.index.json")


_DIFFUSERS = ("config.json", *_weights("diffusion_pytorch_model"))
#: Parts of a model and the files of each that are taken from the hub: no pickle, no other framework's weights.
PARTS: dict[str, tuple[str, ...]] = {
    "vae": _DIFFUSERS,
    "unet": _DIFFUSERS,
    "scheduler": ("scheduler_config.json",),
    "text_encoder": ("config.json", *_weights("model")),
    "tokenizer": ("*.json", "*.txt"),
}
_WITH_WEIGHTS = ("vae", "unet", "text_encoder")


def resolve_model(name: str) -> str:
    """Folder or hub id for the value of ``pretrained_model_name_or_path``. Downloads nothing.

    A short name becomes its first mirror of which there is a copy here, or else its first mirror.

    Raises:
        ConfigError: ``mini`` is asked for and its weights are not there, a path does not exist, or a name is unknown.
    """
    folder = local_folder(name)
    if folder is not None:
        return str(folder)
    ids = sources(name)
    if len(ids) == 1:
        return ids[0]
    return next((i for i in ids if cached(i, ["model_index.json"]) is not None), ids[0])


def model_folder(name: str, parts: Sequence[str] = tuple(PARTS)) -> Path:
    """Folder that holds these parts of a model; what is not on this machine is downloaded, mirror by mirror.

    Args:
        parts: keys of ``PARTS``.

    Raises:
        ConfigError: as :func:`resolve_model`, the folder lacks files, or it holds a model of another family (SDXL).
        HubError: see :mod:`threestudio_redream.hub`.
    """
    folder = local_folder(name)
    if folder is None:
        patterns = ["model_index.json", *(f"{part}/{file}" for part in parts for file in PARTS[part])]
        folder = _from_hub(name, patterns, parts)
    _refuse_other_family(folder, name)
    if lacking := missing_files(folder, parts):
        raise ConfigError(
            f"The model is incomplete: {', '.join(lacking)} not found",
            received=name,
            fix="Save it with save_pretrained(folder, safe_serialization=True); pickled weights (.bin) are not opened.",
        )
    return folder


def _refuse_other_family(folder: Path, name: str) -> None:
    index = folder / "model_index.json"
    if not index.is_file():
        return
    pipeline = json_file(index)
    foreign = [part for part in ("text_encoder_2", "transformer") if any(pipeline.get(part) or ())]
    if foreign:
        raise ConfigError(
            f"The model is of another family: it has a {foreign[0]} ({pipeline.get('_class_name', 'unknown')})",
            received=name,
            fix="Use a model of the Stable Diffusion 1 or 2 family: sd21-base, sd21, sd15, or one tuned from them.",
        )


def missing_files(folder: Path, parts: Sequence[str]) -> list[str]:
    """Files of these parts that a diffusers folder lacks."""
    lacking = []
    for part in parts:
        settings, *weights = PARTS[part]
        wanted: list[tuple[str, ...]] = [(settings,) if part != "tokenizer" else ("tokenizer.json", "vocab.json")]
        if part in _WITH_WEIGHTS:
            wanted.append(tuple(weights))
        for names in wanted:
            if not any(any((folder / part).glob(name)) for name in names):
                lacking.append(f"{part}/{names[0]}")
    return lacking


def load_component(model: str, subfolder: str, library: str, class_name: str, **options: Any) -> Any:
    """One part of a diffusers model through its ``from_pretrained``.

    Args:
        model: any name that :func:`resolve_model` takes, or what it returned. library: ``diffusers`` or
            ``transformers``. options: passed on.

    Raises:
        ConfigError: the part cannot be loaded; a HubError if it cannot be had.
    """
    folder = local_folder(model) or model_folder(model, (subfolder,))
    if subfolder in _WITH_WEIGHTS:
        options.setdefault("use_safetensors", True)
    try:
        with _quiet():
            made = getattr(importlib.import_module(library), class_name)
            return made.from_pretrained(str(folder), subfolder=subfolder, local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError) as cause:
        raise ConfigError(
            f"{subfolder}/ of the model cannot be loaded: {str(cause).splitlines()[0] if str(cause) else cause!r}",
            received=model,
            fix="Check the folder, or remove a damaged copy from the hub's cache so that it is downloaded again.",
        ) from cause


def local_folder(name: str) -> Path | None:
    """The folder that a name means, or None for something of the hub."""
    if name == MINI:
        from threestudio_redream.mini import DIFFUSION

        if not (DIFFUSION / "model_index.json").is_file():
            raise ConfigError(
                "The mini Stable Diffusion is not in place",
                received=str(DIFFUSION),
                fix="Restore threestudio_redream/mini from the repository, or train it again (tools/mini/README.md).",
            )
        return Path(DIFFUSION)
    path = Path(name).expanduser()
    if name and path.is_dir():
        if not (path / "model_index.json").is_file() and not (path / "unet").is_dir():
            raise ConfigError(
                "The folder is no diffusers model: it has neither model_index.json nor unet/",
                received=str(path),
                fix="Give the folder that StableDiffusionPipeline.save_pretrained wrote.",
            )
        return path
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or (os.sep != "/" and os.sep in name):
        raise ConfigError("The model folder does not exist", received=name, fix="Check the path, or give a hub id.")
    if "/" not in name and find_known(name) is None:
        names = [MINI, *(model.name for model in KNOWN)]
        near = difflib.get_close_matches(name, names, n=2)
        raise ConfigError(
            "No model is known by this name",
            received=name,
            fix=f"{f'Did you mean {near[0]}? ' if near else ''}Known are {', '.join(names)}; or give OWNER/NAME of the "
            "hub, or a folder.",
        )
    return None


def _from_hub(name: str, patterns: list[str], parts: Sequence[str]) -> Path:
    ids = sources(name)
    for repository in ids:
        copy = cached(repository, patterns)
        if copy is not None and not missing_files(copy, parts):
            return copy
    known = find_known(name)
    if known is not None and name in known.former:
        log.warning("The model %s has left the hub; trying its mirrors: %s", name, ", ".join(known.mirrors))
    try:
        _refuse_other_family(fetch_first(ids, patterns[:1]), name)  # before gigabytes are downloaded in vain
        return fetch_first(ids, patterns)
    except HubNotFoundError as error:
        others = [] if known is None else [i for i in known.mirrors if i not in ids]
        if known is None or not others:
            raise
        fix = f"Write {known.name}, which also tries {', '.join(others)}."
        raise HubNotFoundError(error.problem, received=name, fix=fix) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the chatter of loading: bars, deprecations and notices that a user can do nothing about."""
    from transformers.utils import logging as chatter

    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers", "accelerate")]
    levels, bars = [logger.level for logger in loggers], chatter.is_progress_bar_enabled()
    chatter.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
        if bars:
            chatter.enable_progress_bar()
