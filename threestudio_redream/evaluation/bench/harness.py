"""How the runs of a sweep are made: the same folders, configurations and assets for all of them."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from threestudio_redream.errors import ConfigError
from threestudio_redream.evaluation.bench.inputs import index_content, weights_content
from threestudio_redream.evaluation.bench.methods import METHODS, Choice
from threestudio_redream.evaluation.bench.suites import Cell, open_suite
from threestudio_redream.shipped import shipped

__all__ = ["Harness"]


@dataclass(frozen=True)
class Harness:
    """Where and how the runs of a sweep are made; the same for all of them.

    Attributes:
        suite: its name. work: folder of the runs. root: folder with ``custom_configs``; runs start there. If it is the
            current folder, it may do without: the configurations of the installation are used.
        gpu: as for ``launch.py``. threads: of each run. extra: ``key=value`` for every run.
        index: folder of the assets; empty: the one that ReDream's configuration names.
        keep_checkpoints: leave them where they are after scoring.
    """

    suite: str
    work: Path
    root: Path
    gpu: str = "cpu"
    threads: int = 1
    extra: tuple[str, ...] = ()
    index: str = ""
    keep_checkpoints: bool = False

    def folder(self, cell: Cell) -> Path:
        """Of one run."""
        return self.work / cell.method / cell.name

    def folder_of(self, row: Mapping[str, Any]) -> Path:
        """Of the run that a row is of."""
        return self.folder(Cell(row["method"], row["prompt"], row["seed"]))

    def config_files(self, cell: Cell) -> list[Path]:
        """Configurations of a run, the later over the earlier.

        Raises:
            ConfigError: one is not there.
        """
        method = METHODS[cell.method]
        names = [open_suite(self.suite).configs[method.base]]
        if method.ablation:
            names.append(f"ablations/{method.ablation}.yaml")
        files = [_config_file(self.root, name) for name in names]
        if missing := [file for file in files if not file.is_file()]:
            raise ConfigError(
                "A configuration of the suite is not here",
                received=str(missing[0]),
                fix="Run from a clone of the repository, or name it with --root.",
            )
        return files

    def overrides(self, cell: Cell) -> list[str]:
        """What decides a run's result beside its files, as ``key=value``.

        Raises:
            ConfigError: the method needs an asset that the index does not have (see :meth:`applicable`).
        """
        method = METHODS[cell.method]
        words = [*self._common_overrides(cell.method)]
        if method.base == "redream" and method.asset != "best":
            if (reference := self.asset(cell)) is None:
                raise ConfigError(
                    f"The index has no asset that {cell.method} could be given",
                    received=cell.prompt,
                    fix="Leave the method or the prompt out, or give an index with more assets of its kind.",
                )
            words.append(f"system.retrieval.asset_ids=[{reference.record.asset_id}]")
        return [f"system.prompt_processor.prompt={cell.prompt}", f"seed={cell.seed}", *words]

    def settings(self, cell: Cell) -> str:
        """Fingerprint of everything above, comments aside: results with another one are of another experiment.

        An index of one's own counts by its content, so that it may lie elsewhere on another machine.
        """
        parts = [[_content(file) for file in self.config_files(cell)], self.overrides(cell)]
        if self.index:
            parts.append([index_content(self.index)])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def inputs(self, cell: Cell) -> dict[str, str]:
        """SHA-256 of what a run reads beside its configuration: the ``index`` of assets, and the diffusion model's
        ``weights`` unless they come from the hub."""
        files = tuple(self.config_files(cell))
        found = {"weights": weights_content(_model_name(files, self._common_overrides(cell.method)))}
        if METHODS[cell.method].base == "redream":
            found["index"] = index_content(self.retrieval().index)
        return {name: content for name, content in found.items() if content}

    def applicable(self, cell: Cell) -> bool:
        """Whether the index has the asset that the method asks for; methods that take the best one do without."""
        method = METHODS[cell.method]
        return method.base != "redream" or method.asset == "best" or self.asset(cell) is not None

    def _common_overrides(self, method: str) -> tuple[str, ...]:
        return (*open_suite(self.suite).overrides, *METHODS[method].overrides, *self.extra)

    def command(self, cell: Cell) -> list[str]:
        """The launch of a run."""
        folder = self.folder(cell)
        files = [word for file in self.config_files(cell) for word in ("--config", str(file))]
        words = ["use_timestamp=false", "resume=last", f"exp_root_dir={folder.parent}", "name=.", f"tag={folder.name}"]
        if METHODS[cell.method].base == "redream":
            words.append(f"system.cache={self.work / 'adaptations'}")
            if self.index:
                words.append(f"system.retrieval.index={self.index}")
        launcher = [sys.executable, "-m", "threestudio_redream.runtime.launch"]
        return [*launcher, *files, "--gpu", self.gpu, *words, *self.overrides(cell)]

    def asset(self, cell: Cell) -> Any:
        """The :class:`~threestudio_redream.retrieval.retrieve.Reference` that a run gets, or is compared with; None if
        nothing in the index is like the prompt."""
        method = METHODS[cell.method]
        return _asset(self.root, self.suite, self.index, cell.prompt, cell.seed, method.asset)

    def retrieval(self) -> Any:
        """How assets are found, a :class:`~threestudio_redream.retrieval.retrieve.RetrievalConfig`.

        Raises:
            ConfigError: neither this sweep nor ReDream's configuration names an index.
        """
        return _retrieval_config(self.root, self.suite, self.index)


def _config_file(root: Path, name: str) -> Path:
    """Where the suite runs from a folder that is no clone, the configurations are those of the installation."""
    path = Path("custom_configs") / name
    return shipped(path).resolve() if root == Path.cwd() else root / path


def _content(file: Path) -> Any:
    """What a configuration says, with its interpolations as they are written."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.load(file), resolve=False)


@cache
def _asset(root: Path, suite: str, index: str, prompt: str, seed: int, choice: Choice) -> Any:
    from dataclasses import replace

    from threestudio_redream.retrieval.index.reader import Index
    from threestudio_redream.retrieval.retrieve import retrieve

    cfg = _retrieval_config(root, suite, index)
    if choice == "random":
        ids = sorted(record.asset_id for record in Index.open(shipped(cfg.index), check="quick").records())
        key = int.from_bytes(hashlib.sha256(f"{prompt}\0{seed}".encode()).digest()[:8], "little")
        cfg = replace(cfg, asset_ids=(ids[int(np.random.default_rng(key).integers(len(ids)))],))
    wanted = open_suite(suite).other_prompt(prompt) if choice == "wrong" else prompt
    found = retrieve(wanted, replace(cfg, count=2 if choice == "second" else 1)).references
    place = 1 if choice == "second" else 0
    return found[place] if len(found) > place else None


@cache
def _model_name(files: tuple[Path, ...], words: tuple[str, ...]) -> str:
    """Of the diffusion model that a run is guided by."""
    from threestudio_redream.runtime.config import load_config

    system = load_config(*files, cli_args=["system.prompt_processor.prompt=x", *words]).system
    return str((system.get("guidance") or {}).get("pretrained_model_name_or_path") or "")


@cache
def _retrieval_config(root: Path, suite: str, index: str) -> Any:
    from omegaconf import MISSING, OmegaConf

    from threestudio_redream.retrieval.retrieve import RetrievalConfig

    cfg = OmegaConf.load(_config_file(root, open_suite(suite).configs["redream"]))
    keys = OmegaConf.to_container(cfg.system.retrieval)
    assert isinstance(keys, dict)
    keys["index"] = index or keys["index"]
    if keys["index"] == MISSING:
        raise ConfigError(
            f"The suite {suite} ships without assets",
            received="no index",
            fix="Build one (retrieval_index/README.md) and name it with --index FOLDER.",
        )
    if (root / keys["index"]).is_dir():  # runs start in root, this process may not have
        keys["index"] = str(root / keys["index"])
    return RetrievalConfig(**{str(key): value for key, value in keys.items() if key != "enabled"})
