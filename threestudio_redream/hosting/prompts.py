"""Upstream's PromptProcessor with our encoding: in this process, and cached by content.

Upstream encodes in a spawned child, which cannot import a class out of ``custom/``, and keys its cache on the model's
name, so that a changed model, or learned view tokens, would silently get old embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from threestudio_redream.runtime.host import resolve
from threestudio_redream.runtime.prompt_processors.base import PromptProcessor as Ours

__all__ = ["PromptProcessor"]

_Theirs: Any = resolve("threestudio.models.prompt_processors.base:PromptProcessor")


class PromptProcessor(Ours, _Theirs):
    """Ours in all it does; upstream's by inheritance, construction and device."""

    @dataclass
    class Config(Ours.Config, _Theirs.Config):
        pass

    def __init__(self, cfg: Mapping[str, Any] | None = None, *args: Any, **kwargs: Any) -> None:
        _Theirs.__init__(self, {} if cfg is None else cfg, *args, **kwargs)
