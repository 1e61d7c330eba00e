"""Verdicts of the mini lab's judge on a whole turn: kind, finish, fronts."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from threestudio_redream.evaluation.janus import count_fronts
from threestudio_redream.mini.judge import Judge

__all__ = ["judge_turn"]

FRONT = 0


def judge_turn(judge: Judge, views: Tensor, descriptor: str, kind: str) -> dict[str, Any]:
    """Verdict on views ``[A, H, W, 3]`` from even azimuths around one object.

    ``recognised``: at least half of the views, and their mean probability, name the kind. ``fronts`` and ``janus``:
    see :func:`~threestudio_redream.evaluation.janus.count_fronts`. ``one_front``: there is a front and no Janus; a body
    that looks alike from all sides has neither. Both are None for kinds without a front.
    """
    verdict = judge.judge(views)
    at = judge.kinds.index(kind)
    named = (verdict.kind.argmax(1) == at).float().mean()
    words = verdict.descriptor.mean(0)
    front = count_fronts(verdict.view[:, FRONT].numpy())
    return {
        "recognised": bool(named >= 0.5 and int(verdict.kind.mean(0).argmax()) == at),
        "views_naming_it": float(named),
        "descriptor_right": int(words.argmax()) == judge.descriptors.index(descriptor),
        "has_front": judge.fronted[at],
        "fronts": front.fronts,
        "front_share": front.share,
        "one_front": front.fronts == 1 and not front.janus if judge.fronted[at] else None,
        "janus": front.janus if judge.fronted[at] else None,
    }
