"""The training loop all mini models share: cosine or linear decay, EMA, CSV log, exact resume.

Every batch is a function of (seed, step), so a run that was killed and goes on gives the same weights as one that
was not.
"""

from __future__ import annotations

import csv
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from threestudio_redream.runtime.checkpoint import read_checkpoint, write_checkpoint
from threestudio_redream.runtime.memory import keep_freed_memory
from threestudio_redream.runtime.rng import step_generator
from tools.mini.muon import MuonAdamW, hidden_matrices

__all__ = ["Plan", "StopAtSignal", "train"]

log = logging.getLogger("mini-lab")

#: (step, generator) -> loss and figures for the log.
LossFn = Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        steps: optimisation steps in all. lr: highest learning rate. warmup: steps of linear growth to it.
        decay: ``cosine`` or ``linear``, to ``floor`` times lr. betas, weight_decay: of AdamW.
        clip: of the gradient norm.
        ema: decay of the averaged weights; 0 keeps none. seed: of every batch.
        log_every, save_every: steps.
    """

    steps: int
    lr: float
    warmup: int = 100
    decay: str = "cosine"
    floor: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-2
    muon: bool = False
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    log_every: int = 50
    save_every: int = 500

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        share = (step - self.warmup) / max(self.steps - self.warmup, 1)
        fall = 0.5 * (1.0 + math.cos(math.pi * share)) if self.decay == "cosine" else 1.0 - share
        return self.lr * (self.floor + (1.0 - self.floor) * fall)


class StopAtSignal:
    """Turns SIGTERM and SIGINT into a request to stop after the current step."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> StopAtSignal:
        self._old = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        self.asked = True


def train(
    plan: Plan,
    modules: dict[str, nn.Module],
    loss_fn: LossFn,
    folder: Path,
    *,
    rates: dict[str, float] | None = None,
    on_save: Callable[[int, dict[str, nn.Module]], None] | None = None,
    until: int | None = None,
) -> dict[str, nn.Module]:
    """Train until ``plan.steps``, continuing from the folder's checkpoint if there is one.

    Args:
        modules: what is trained, by name. loss_fn: of a step; it draws everything from the generator it gets.
        folder: for ``state.safetensors``, ``log.csv`` and ``plan`` within the checkpoint.
        rates: factors on the learning rate by module name.
        on_save: called with the step and the averaged modules whenever a checkpoint was written.
        until: stop early at this step (for tests).

    Returns:
        the averaged modules, in eval mode.

    Raises:
        SystemExit: 130 after a signal; the state has been written.
    """
    keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    factors = rates or {}
    groups: list[dict[str, Any]] = []
    for name, module in modules.items():
        trained = [p for p in module.parameters() if p.requires_grad]
        hidden = {id(p) for p in hidden_matrices(module)} if plan.muon else set()
        for muon in (False, True):
            part = [p for p in trained if (id(p) in hidden) == muon]
            groups.append({"params": part, "factor": factors.get(name, 1.0), "muon": muon})
    groups = [group for group in groups if group["params"]]
    optimizer = MuonAdamW(groups, lr=plan.lr, betas=plan.betas, weight_decay=plan.weight_decay)
    average = {name: deepcopy(module).requires_grad_(False).eval() for name, module in modules.items()}
    path, step = folder / "state.safetensors", 0
    if path.is_file():
        state = read_checkpoint(path)
        if state["plan"] != _plain(plan):
            raise SystemExit(f"{path} belongs to another plan ({state['plan']}); remove the folder to start over")
        step = int(state["step"])
        optimizer.load_state_dict(state["optimizer"])
        for name, module in modules.items():
            module.load_state_dict(state["modules"][name])
            average[name].load_state_dict(state["average"][name])
        _forget_rows(folder / "log.csv", step)
        log.info("%s: going on at step %d", folder.name, step)

    def save() -> None:
        write_checkpoint(
            path,
            {
                "plan": _plain(plan),
                "step": step,
                "optimizer": optimizer.state_dict(),
                "modules": {name: dict(module.state_dict()) for name, module in modules.items()},
                "average": {name: dict(module.state_dict()) for name, module in average.items()},
            },
        )
        if on_save is not None:
            on_save(step, average)

    for module in modules.values():
        module.train()
    parameters = [parameter for group in groups for parameter in group["params"]]
    end = plan.steps if until is None else min(until, plan.steps)
    started, first, count = time.perf_counter(), step, 0
    sums: dict[str, float] = {}
    with StopAtSignal() as stop:
        while step < end and not stop.asked:
            for group in optimizer.param_groups:
                group["lr"] = plan.rate(step) * group["factor"]
            optimizer.zero_grad(set_to_none=True)
            loss, figures = loss_fn(step, step_generator(plan.seed, step))
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, plan.clip)
            if not math.isfinite(float(norm)):
                raise SystemExit(f"the gradient of step {step} is not finite; lower the learning rate")
            optimizer.step()
            step += 1
            _average(average, modules, min(plan.ema, (1.0 + step) / (10.0 + step)))
            for name, value in {"loss": float(loss.detach()), "grad_norm": float(norm), **figures}.items():
                sums[name] = sums.get(name, 0.0) + value
            count += 1
            if step % plan.log_every == 0 or step == end:
                rate = (step - first) / (time.perf_counter() - started)
                row = {"step": step, "lr": plan.rate(step - 1), "steps_per_s": rate}
                row |= {name: value / count for name, value in sums.items()}
                _write_row(folder / "log.csv", row)
                text = " ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in ("step", "lr"))
                log.info("%s %d/%d %s, %.0f s left", folder.name, step, plan.steps, text, (plan.steps - step) / rate)
                sums, count = {}, 0
            if step % plan.save_every == 0 and step < end:
                save()
    if step > first:
        save()
    if stop.asked:
        raise SystemExit(130)
    return average


def _plain(plan: Plan) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(plan).items()}


@torch.no_grad()
def _average(average: dict[str, nn.Module], modules: dict[str, nn.Module], decay: float) -> None:
    kept: list[Tensor] = []
    fresh: list[Tensor] = []
    for name, module in modules.items():
        for old, new in zip(_state(average[name]), _state(module)):
            if old.is_floating_point():
                kept.append(old)
                fresh.append(new)
            else:
                old.copy_(new)
    torch._foreach_lerp_(kept, fresh, 1.0 - decay)


def _state(module: nn.Module) -> Iterable[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _forget_rows(path: Path, step: int) -> None:
    """Drop the rows of steps after the checkpoint: they will be written again."""
    if path.is_file():
        head, *rows = path.read_text("utf-8").splitlines(keepends=True)
        path.write_text(head + "".join(row for row in rows if int(row.split(",")[0]) <= step), encoding="utf-8")


def _write_row(path: Path, row: dict[str, float]) -> None:
    fresh = not path.is_file() or os.path.getsize(path) == 0
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if fresh:
            writer.writeheader()
        writer.writerow({name: f"{value:.6g}" for name, value in row.items()})
