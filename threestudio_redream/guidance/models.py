"""Which diffusion model a configuration means, and how its parts are opened.

One key, ``pretrained_model_name_or_path``, names the model for every component: ``mini`` (the model that ships with
the project), a folder in diffusers layout, or a hub id.
"""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from threestudio_redream.errors import ConfigError

__all__ = ["MINI", "load_component", "resolve_model"]

MINI = "mini"


def resolve_model(name: str) -> str:
    """Folder or hub id for the value of ``pretrained_model_name_or_path``.

    Raises:
        ConfigError: ``mini`` is asked for and its weights are not there, or a path does not exist.
    """
    if name == MINI:
        from threestudio_redream.mini import DIFFUSION

        if not (DIFFUSION / "model_index.json").is_file():
            raise ConfigError(
                "The mini Stable Diffusion is not in place",
                received=str(DIFFUSION),
                fix="Restore threestudio_redream/mini from the repository, or train it again (tools/mini/README.md).",
            )
        return str(DIFFUSION)
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or (os.sep != "/" and os.sep in name)
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "model_index.json").is_file() and not (path / "unet").is_dir():
            raise ConfigError(
                "The folder is no diffusers model: it has neither model_index.json nor unet/",
                received=str(path),
                fix="Give the folder that StableDiffusionPipeline.save_pretrained wrote.",
            )
        return str(path)
    if looks_like_path:
        raise ConfigError("The model folder does not exist", received=name, fix="Check the path, or give a hub id.")
    return name


def load_component(model: str, subfolder: str, library: str, class_name: str, **options: Any) -> Any:
    """One part of a diffusers model through its ``from_pretrained``.

    Args:
        model: as :func:`resolve_model` returns it. library: ``diffusers`` or ``transformers``. options: passed on.

    Raises:
        ConfigError: the part cannot be loaded.
    """
    module = importlib.import_module(library)
    if Path(model).is_dir():
        options.setdefault("local_files_only", True)
    try:
        with _quiet():
            return getattr(module, class_name).from_pretrained(model, subfolder=subfolder, **options)
    except (OSError, ValueError, RuntimeError) as cause:
        offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
        raise ConfigError(
            f"{subfolder}/ of the model cannot be loaded: {str(cause).splitlines()[0] if str(cause) else cause!r}",
            received=model,
            fix="HF_HUB_OFFLINE is set: unset it, or give a local folder."
            if offline and not Path(model).is_dir()
            else "Check the name; gated models need `huggingface-cli login` first.",
        ) from cause


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the chatter of loading: deprecations and notices that a user can do nothing about."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers", "accelerate")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
