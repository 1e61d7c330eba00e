"""What a trial folder holds besides results: configuration, command line, code state, checkpoints."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import logging
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from threestudio_redream import __version__
from threestudio_redream.runtime.checkpoint import SUFFIX
from threestudio_redream.runtime.config import dump_config
from threestudio_redream.runtime.files import atomic_write_text

__all__ = ["ConfigSnapshot", "TrialCheckpoint", "code_version", "snapshot_code", "write_command"]

log = logging.getLogger("pytorch_lightning")

_PACKAGES = (
    "torch",
    "numpy",
    "pytorch-lightning",
    "numba",
    "omegaconf",
    "trimesh",
    "diffusers",
    "peft",
)


class TrialCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint over pickle-free files; the last step is always saved.

    ``save_last: link`` and ``monitor: step, mode: max, save_top_k: 2`` keep the two newest.
    """

    FILE_EXTENSION = SUFFIX

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        # inside the last batch, so that the loop counters are those of any other step and a longer run can go on
        if trainer.should_stop or trainer.global_step == trainer.max_steps:
            self._save_now(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        self._save_now(trainer)  # stopped by a time limit, say

    def _save_now(self, trainer: pl.Trainer) -> None:
        if self._last_global_step_saved == trainer.global_step or trainer.global_step == 0:
            return
        candidates = self._monitor_candidates(trainer)
        self._save_topk_checkpoint(trainer, candidates)
        self._save_last_checkpoint(trainer, candidates)


class ConfigSnapshot(Callback):
    """Writes ``configs/parsed.yaml`` and ``configs/raw.yaml`` when training starts."""

    def __init__(self, config_files: list[str], config: Any, folder: str | Path) -> None:
        self.config_files, self.config, self.folder = config_files, config, Path(folder)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        config = copy.deepcopy(self.config)
        config.resume = None  # whoever takes the file again says where from: the one of this start grows old
        dump_config(self.folder / "parsed.yaml", config)
        texts = [Path(file).read_text("utf-8") for file in self.config_files]
        atomic_write_text(self.folder / "raw.yaml", "\n".join(texts))


def write_command(trial_dir: str | Path, arguments: list[str]) -> None:
    """Write the command line that started the run to ``cmd.txt`` (appended to on a resume)."""
    path = Path(trial_dir) / "cmd.txt"
    earlier = path.read_text("utf-8") if path.is_file() else ""
    atomic_write_text(path, f"{earlier}python {shlex.join(arguments)}\n")


def code_version() -> str:
    """The git commit of this package's checkout, with ``+`` if tracked files were changed; else its version."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return __version__
    return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def snapshot_code(folder: str | Path) -> None:
    """Record what code ran: package versions, the git commit, uncommitted changes, and ``custom/`` sources."""
    folder = Path(folder)
    versions = {"threestudio-redream": __version__}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    record = {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": versions,
        "commit": _git("rev-parse", "HEAD"),
    }
    atomic_write_text(folder / "environment.json", json.dumps(record, indent=2))
    patch = _git("diff", "HEAD")
    if patch:
        atomic_write_text(folder / "uncommitted.patch", patch + "\n")
    custom = Path("custom")
    if custom.is_dir():
        for source in sorted(custom.rglob("*.py")):
            if not any(part.startswith((".", "__pycache__")) for part in source.parts):
                target = folder / source
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)


def _git(*arguments: str) -> str | None:
    """What git says of this package's own checkout; None without one, whatever repository lies around it."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.decode("utf-8", errors="replace").strip()
