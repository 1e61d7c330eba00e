"""The two suites: ``mini`` on a laptop, ``paper`` at the paper's scale. Prompts are fixed in files beside this one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from threestudio_redream.errors import ConfigError
from threestudio_redream.evaluation.bench.methods import MAIN, METHODS
from threestudio_redream.evaluation.scoring import ScoreConfig

__all__ = ["SUITES", "Cell", "Column", "Suite", "open_suite"]


@dataclass(frozen=True)
class Cell:
    """One run: a method, a prompt, a seed."""

    method: str
    prompt: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder below the method's, and of its raw file: the prompt in small letters, and the seed."""
        words = "".join(letter if letter.isalnum() else " " for letter in self.prompt.lower()).split()
        return f"{'-'.join(words)[:80]}-{self.seed}"


@dataclass(frozen=True)
class Column:
    """A metric that the tables show. ``better``: ``up``, ``down``, or empty where neither is better."""

    metric: str
    title: str
    better: str = ""
    share: bool = False
    digits: int = 3


@dataclass(frozen=True)
class Suite:
    """Everything that all methods of a comparison have in common.

    Attributes:
        configs: configuration of each base, below ``custom_configs``. overrides: for every run.
        prompts: all of them; ablations take the first ``ablation_prompts``. seeds: default ones.
        scores: what measures each run. columns: what the tables show.
    """

    name: str
    configs: Mapping[str, str]
    overrides: tuple[str, ...]
    prompts: tuple[str, ...]
    ablation_prompts: int
    seeds: tuple[int, ...]
    scores: tuple[ScoreConfig, ...]
    columns: tuple[Column, ...] = field(repr=False)

    def cells(
        self, methods: Sequence[str], *, prompts: int | None = None, seeds: Sequence[int] | None = None
    ) -> list[Cell]:
        """All runs, the first seed of every method first, so that an unfinished sweep already compares.

        Args:
            prompts: the first so many for every method; None gives the paper's rows all of them, ablations fewer.

        Raises:
            ConfigError: more prompts than there are, or none.
        """
        if prompts is not None and not 1 <= prompts <= len(self.prompts):
            raise ConfigError(
                f"The suite {self.name} has {len(self.prompts)} prompts", received=prompts, fix="Ask for 1 or more."
            )
        limits = {name: prompts or (len(self.prompts) if name in MAIN else self.ablation_prompts) for name in methods}
        return [
            Cell(method, prompt, seed)
            for seed in (self.seeds if seeds is None else seeds)
            for number, prompt in enumerate(self.prompts)
            for method in methods
            if number < limits[method]
        ]

    def other_prompt(self, prompt: str) -> str:
        """The prompt half-way round the suite: it shows something else."""
        return self.prompts[(self.prompts.index(prompt) + len(self.prompts) // 2) % len(self.prompts)]


def _prompts(name: str) -> tuple[str, ...]:
    file = resources.files("threestudio_redream.evaluation.bench").joinpath("prompts").joinpath(f"{name}.json")
    return tuple(row["prompt"] for row in json.loads(file.read_text("utf-8"))["prompts"])


def _mini() -> Suite:
    prompts = _prompts("mini")
    return Suite(
        name="mini",
        configs={
            "sds": "baselines/dreamfusion.yaml",
            "vsd": "baselines/prolificdreamer.yaml",
            "redream": "redream.yaml",
        },
        # 36 azimuths and the first again. The judge takes every third.
        overrides=("data.n_test_views=37", "system.export_after_training=false"),
        prompts=prompts,
        ablation_prompts=6,
        seeds=(0, 1, 2),
        scores=(ScoreConfig(encoder="mini", lpips="mini", others=prompts, judge=True),),
        columns=(
            Column("judge/janus", "Janus", "down", share=True),
            Column("judge/one_front", "one front", "up", share=True),
            Column("judge/recognised", "recognised", "up", share=True),
            Column("judge/descriptor_right", "finish as asked", "up", share=True),
            Column("clip_score[mini]", "CLIP [mini]", "up"),
            Column("r_precision[mini]", "R-precision [mini]", "up"),
            Column("a_lpips[mini]", "A-LPIPS [mini]", "down"),
            Column("asset/silhouette_iou", "IoU with asset"),
            Column("seconds", "seconds", "down", digits=0),
        ),
    )


def _paper() -> Suite:
    prompts = _prompts("paper")
    openai, laion = "hf:openai/clip-vit-large-patch14", "openclip:ViT-L-14/laion2b_s32b_b82k"
    return Suite(
        name="paper",
        configs={
            "sds": "baselines/dreamfusion-sd21.yaml",
            "vsd": "baselines/prolificdreamer-sd21.yaml",
            "redream": "redream-sd21.yaml",
        },
        overrides=("data.n_test_views=120",),
        prompts=prompts,
        ablation_prompts=10,
        seeds=(0,),
        scores=(
            ScoreConfig(encoder=openai, lpips="vgg", others=prompts),
            ScoreConfig(encoder=laion, lpips="alex", others=prompts),
        ),
        columns=(
            Column(f"clip_score[{openai}]", "CLIP L/14", "up"),
            Column(f"clip_score[{laion}]", "OpenCLIP L/14", "up"),
            Column("a_lpips[vgg]", "A-LPIPS VGG", "down"),
            Column("a_lpips[alex]", "A-LPIPS Alex", "down"),
            Column(f"r_precision[{openai}]", "R-precision L/14", "up"),
            Column(f"view_entropy[{openai}]", "view entropy"),  # best at 1, and may exceed it
            Column("sharpness", "sharpness"),
            Column("asset/silhouette_iou", "IoU with asset"),
            Column("seconds", "seconds", "down", digits=0),
        ),
    )


SUITES = {"mini": _mini, "paper": _paper}


@cache
def open_suite(name: str) -> Suite:
    """A suite by name.

    Raises:
        ConfigError: unknown.
    """
    if name not in SUITES:
        raise ConfigError("Unknown suite", received=name, fix=f"Use {' or '.join(SUITES)}.")
    suite = SUITES[name]()
    assert set(suite.configs) == {method.base for method in METHODS.values()}
    return suite
