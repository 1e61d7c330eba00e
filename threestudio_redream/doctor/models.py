"""Which models are on this machine, and whether the hub would hand the others out.

Nothing is downloaded. Without ``ask_hub`` the network is not touched either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["ModelFinding", "examine_models"]

Status = Literal["here", "incomplete", "not here", "downloadable", "gone", "gated", "no answer", "unknown"]
#: Seconds that the hub has for an answer.
TIMEOUT = 10.0


@dataclass(frozen=True)
class ModelFinding:
    """What became of one model.

    Attributes:
        name: as a configuration says it. use: what for. licence: of the weights.
        status: ``here``: whole, on this machine. ``incomplete``: files are missing. ``not here``: it would be
            downloaded when a run first names it. After the hub was asked: ``downloadable``, ``gone`` (404),
            ``gated`` (terms are to be accepted), ``no answer``. ``unknown``: it could not be looked for.
        detail: where it is, what is missing, or the reason.
    """

    name: str
    use: str
    licence: str
    status: Status
    detail: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain JSON values."""
        return asdict(self)


def examine_models(ask_hub: bool = False) -> list[ModelFinding]:
    """The models that configurations of this project name.

    Args:
        ask_hub: for those that are not here, ask the hub whether it has them; up to ten seconds each.
    """
    rows: list[tuple[str, str, str, Callable[[], tuple[Status, str]]]] = [
        ("mini", "2D prior of the mini configurations", "Apache-2.0", _diffusion("mini", (), ask_hub))
    ]
    try:
        from threestudio_redream.guidance.registry import KNOWN, sources
        from threestudio_redream.retrieval.encoders.registry import FULL
    except ImportError as error:
        return [ModelFinding("mini", "", "", "unknown", f"{type(error).__name__}: {error}")]
    for known in KNOWN:
        use = f"2D prior, {known.resolution} pixels"
        rows.append((known.name, use, known.licence, _diffusion(known.name, sources(known.name), ask_hub)))
    clip = FULL.partition(":")[2]
    rows.append((FULL, "retrieval and CLIP scores at full size", "MIT", _of_hub(clip, ask_hub)))
    return [ModelFinding(name, use, licence, *_safely(look)) for name, use, licence, look in rows]


def _safely(look: Callable[[], tuple[Status, str]]) -> tuple[Status, str]:
    """The doctor answers also where the packages that look for models are broken."""
    try:
        return look()
    except Exception as error:
        return "unknown", f"{type(error).__name__}: {error}"


def _diffusion(name: str, mirrors: Iterable[str], ask_hub: bool) -> Callable[[], tuple[Status, str]]:
    def look() -> tuple[Status, str]:
        from pathlib import Path

        from threestudio_redream.guidance.models import PARTS, missing_files, resolve_model
        from threestudio_redream.hub import cached

        folder = Path(resolve_model(name)) if not mirrors else None
        for mirror in mirrors:
            folder = folder or cached(mirror, ["model_index.json"])
        if folder is not None:
            lacking = missing_files(folder, tuple(PARTS))
            return ("incomplete", f"without {', '.join(lacking)}") if lacking else ("here", str(folder))
        return _first_of_hub(mirrors) if ask_hub else ("not here", "")

    return look


def _of_hub(repository: str, ask_hub: bool) -> Callable[[], tuple[Status, str]]:
    def look() -> tuple[Status, str]:
        from threestudio_redream.hub import cached

        folder = cached(repository, ["config.json"])
        if folder is not None and any(folder.glob("*.safetensors")):
            return "here", str(folder)
        return _first_of_hub([repository]) if ask_hub else ("not here", "")

    return look


def _first_of_hub(repositories: Iterable[str]) -> tuple[Status, str]:
    """The first repository that the hub hands out, or why none of them."""
    from huggingface_hub import HfApi

    from threestudio_redream.hub import HubGatedError, HubNotFoundError, explain

    refused: list[tuple[Status, str]] = []
    for repository in repositories:
        try:
            facts = HfApi().model_info(repository, timeout=TIMEOUT)
        except Exception as cause:  # the hub's errors have no common base
            error = explain(cause, repository)
            kinds: list[tuple[type, Status]] = [(HubNotFoundError, "gone"), (HubGatedError, "gated")]
            status: Status = next((word for kind, word in kinds if isinstance(error, kind)), "no answer")
            refused.append((status, f"{repository}: {error.problem}"))
            continue
        if not getattr(facts, "gated", False):
            return "downloadable", repository
        refused.append(("gated", f"{repository}: accept its terms on its page"))
    order: tuple[Status, ...] = ("gated", "no answer", "gone")
    return min(refused, key=lambda found: order.index(found[0]))
