"""Everything a run needs is resolved before it does anything: models, index, encoder.

A model that left the hub, terms that were never accepted or a mistyped folder are found in seconds, all of them at
once, and not after an hour of work.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from threestudio_redream.errors import ConfigError, MissingExtraError, RedreamError
from threestudio_redream.guidance.models import model_folder
from threestudio_redream.guidance.registry import find_known
from threestudio_redream.retrieval.encoders import open_encoder
from threestudio_redream.retrieval.encoders.weights import find_model, json_file, model_files
from threestudio_redream.retrieval.index.manifest import read_manifest
from threestudio_redream.retrieval.index.reader import Index
from threestudio_redream.retrieval.retrieve import RetrievalConfig, index_folder
from threestudio_redream.runtime.config import parse_structured

__all__ = ["Need", "PreflightError", "preflight"]

log = logging.getLogger("pytorch_lightning")

GUIDANCE_PARTS = ("vae", "unet", "scheduler")
PROMPT_PARTS = ("tokenizer", "text_encoder")
MODEL_KEYS = ("pretrained_model_name_or_path", "particle_model_name_or_path")


class PreflightError(ConfigError):
    """Several things that a run needs are not there.

    Attributes:
        errors: one for each.
    """

    def __init__(self, errors: list[RedreamError]) -> None:
        self.errors = tuple(errors)
        listed = "\n".join(f"{number}. {error}" for number, error in enumerate(errors, 1))
        super().__init__(f"{len(errors)} things that the run needs are not there:\n{listed}")


@dataclass(frozen=True)
class Need:
    """Something that a run needs, and has.

    Attributes:
        key: of the configuration, e.g. ``system.guidance``. name: its value. where: the folder on this machine.
    """

    key: str
    name: str
    where: Path


def preflight(cfg: Any, *, training: bool = True) -> tuple[Need, ...]:
    """Find, and where necessary download, what a configuration names. Loads no weights.

    Parts of other extensions are passed over: they load what they need themselves.

    Args:
        cfg: of :func:`~threestudio_redream.runtime.config.load_config`. training: assets are needed, too.

    Raises:
        ConfigError: a value is not given (``???``), a model is not what it should be or does not fit another, the
            index or its encoder is not there. HubError: a model cannot be had, and why. PreflightError: several.
    """
    if lacking := sorted(OmegaConf.missing_keys(cfg)):
        raise ConfigError(
            f"The configuration leaves open: {', '.join(lacking)}",
            received="???",
            fix=f"Give it on the command line: {lacking[0]}=VALUE.",
        )
    system: dict[str, Any] = OmegaConf.to_container(cfg.system)  # type: ignore[assignment]
    found: list[Need] = []
    errors: list[RedreamError] = []

    def resolve(what: Callable[[], list[Need]]) -> None:
        try:
            found.extend(what())
        except RedreamError as error:
            if str(error) not in {str(other) for other in errors}:  # one model, named by several parts
                errors.append(error)

    for key, name, parts in _models(system):
        resolve(lambda key=key, name=name, parts=parts: [_model(key, name, parts)])  # type: ignore[misc]
    retrieval = system.get("retrieval")
    if training and cfg.system_type == "redream-system" and (retrieval or {}).get("enabled", True):
        resolve(lambda: _retrieval(retrieval or {}))
    watch = system.get("view_scores") or {}
    if training and str(cfg.system_type).startswith("redream-") and watch.get("every"):
        name = str(watch.get("encoder", "mini"))
        resolve(lambda: [Need("system.view_scores.encoder", name, _encoder(name))])
    if not errors:
        resolve(lambda: _fit(found))
    if errors:
        raise errors[0] if len(errors) == 1 else PreflightError(errors)
    for need in found:
        where = "" if str(need.where) == need.name else f" ({need.where})"
        log.info("Preflight: %s: %s%s", need.key, need.name, where)
    return tuple(found)


# ------------------------------------------------------------------ models
def _models(system: Mapping[str, Any]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Key, name and needed parts of every model that our classes open."""
    blocks: list[tuple[str, Any, Any, tuple[str, ...]]] = []
    for part, parts in (("guidance", GUIDANCE_PARTS), ("prompt_processor", PROMPT_PARTS)):
        blocks.append((f"system.{part}", system.get(f"{part}_type"), system.get(part), parts))
    for number, entry in enumerate(system.get("guidances") or []):
        if not isinstance(entry, Mapping):
            continue  # the system refuses it
        key = f"system.guidances.{number}"
        prompts = (entry.get("prompt_processor_type"), entry.get("prompt_processor"))
        blocks.append((key, entry.get("type"), entry, GUIDANCE_PARTS))
        blocks.append((f"{key}.prompt_processor", *prompts, PROMPT_PARTS))
    for key, kind, block, wanted in blocks:
        if not str(kind).startswith("redream-"):
            continue
        block = block or {}
        for model_key in MODEL_KEYS:
            name = block.get(model_key, "mini" if model_key == MODEL_KEYS[0] else None)
            if name is not None:
                yield f"{key}.{model_key}", str(name), wanted


def _model(key: str, name: str, parts: tuple[str, ...]) -> Need:
    folder = model_folder(name, parts)
    known = find_known(name)
    if known is not None and "unet" in parts:
        unet, scheduler = (json_file(folder / file) for file in ("unet/config.json", "scheduler/scheduler_config.json"))
        facts = {
            "prediction_type": scheduler.get("prediction_type", "epsilon"),
            "latent_size": unet.get("sample_size"),
            "text_width": unet.get("cross_attention_dim"),
        }
        wrong = {fact: value for fact, value in facts.items() if value != getattr(known, fact)}
        if wrong:
            raise ConfigError(
                f"This is another model than {known.name}: {', '.join(wrong)} should be "
                f"{', '.join(str(getattr(known, fact)) for fact in wrong)}",
                received=wrong,
                fix=f"Name another mirror or a folder ({key}=...).",
            )
    return Need(key, name, folder)


def _fit(found: list[Need]) -> list[Need]:
    """Raise unless all models take the same text embeddings; a second model that was left behind shows here."""
    widths: dict[str, int] = {}
    for need in found:
        for part, fact in (("unet", "cross_attention_dim"), ("text_encoder", "hidden_size")):
            mine = part in (GUIDANCE_PARTS if ".prompt_processor." not in need.key else PROMPT_PARTS)
            file = need.where / part / "config.json"
            if need.key.endswith(MODEL_KEYS) and ".guidances." not in need.key and mine and file.is_file():
                widths[need.key] = int(json_file(file)[fact])
    if len(set(widths.values())) > 1:
        raise ConfigError(
            "The models do not fit together: their text embeddings have different widths",
            received=widths,
            fix="Name one model for guidance and prompt processor, for example with model=NAME.",
        )
    return []


# ------------------------------------------------------------------ assets
def _retrieval(values: dict[str, Any]) -> list[Need]:
    values = {key: value for key, value in values.items() if key != "enabled"}
    settings = OmegaConf.to_object(parse_structured(RetrievalConfig, values))
    assert isinstance(settings, RetrievalConfig)
    folder = index_folder(settings.index)
    spec = read_manifest(folder).spec
    if settings.asset_ids:
        index = Index.open(folder, check="quick")
        for asset_id in settings.asset_ids:
            index.record(asset_id)
    if settings.source_root and not Path(settings.source_root).expanduser().is_dir():
        raise ConfigError(
            "The folder of the assets does not exist",
            received=settings.source_root,
            fix="Correct system.retrieval.source_root.",
        )
    name = settings.encoder or spec.encoder.name
    index_need = Need("system.retrieval.index", settings.index, folder)
    return [index_need, Need("system.retrieval.encoder", name, _encoder(name))]


def _encoder(name: str) -> Path:
    """Where an encoder is. Its weights are not read."""
    kind, _, rest = name.partition(":")
    if kind == "hf" and rest:
        folder = find_model(rest)
        model_files(folder)
        return folder
    if kind == "openclip" and rest:
        if importlib.util.find_spec("open_clip") is None:
            raise MissingExtraError("open_clip", "openclip", "An openclip: encoder")
        local = rest.partition(":")
        if local[0] == "local-dir" and not Path(local[2]).is_dir():
            raise ConfigError("The folder does not exist", received=local[2], fix="Correct the encoder's name.")
        return Path(local[2] or rest)
    open_encoder(name, texts_only=True)  # mini, or a name that it refuses
    from threestudio_redream.mini import CLIP

    return Path(CLIP)
