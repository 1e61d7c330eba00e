"""How the figures of the mini lab are counted."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from threestudio_redream.evaluation.judging import judge_turn
from threestudio_redream.mini.judge import Judge, Verdict
from tools.mini import evaluate_diffusion, evaluate_distillation
from tools.mini.captions import prompt
from tools.mini.descriptors import COLORS, DESCRIPTORS
from tools.mini.evaluate_judge import evaluate_judge
from tools.mini.seeds import held_out_pairs

KINDS = ("bear", "cat", "lamp")


def one_hot(columns, width):
    return torch.nn.functional.one_hot(torch.tensor(columns), width).float()


class SayJudge:
    """Answers what it was told to, picture by picture."""

    kinds, descriptors, fronted = KINDS, DESCRIPTORS, (True, True, False)

    def __init__(self, kinds, words, views):
        self.verdict = Verdict(one_hot(kinds, 4), one_hot(words, len(DESCRIPTORS)), one_hot(views, 4))

    def judge(self, images):
        count = len(images)
        return Verdict(*(values[:count] for values in (self.verdict.kind, self.verdict.descriptor, self.verdict.view)))


def asked(monkeypatch):
    prompts = []

    def sample(pipeline, texts, seed, **_):
        prompts.append(texts)
        return torch.zeros(len(texts), 64, 64, 3)

    monkeypatch.setattr(evaluate_diffusion, "sample", sample)
    return prompts


def test_composition_counts_object_and_colour_apart(monkeypatch):
    prompts = asked(monkeypatch)
    pairs = held_out_pairs(KINDS, tuple(COLORS))
    chosen = [pairs[i % len(pairs)] for i in range(8)]
    kinds = [KINDS.index(kind) for kind, _ in chosen]
    words = [DESCRIPTORS.index(color) for _, color in chosen]
    kinds[0] = 3  # unclear
    kinds[1] = (kinds[1] + 1) % 3
    words[1] = words[2] = DESCRIPTORS.index("stone")
    figures = evaluate_diffusion.evaluate_composition(None, SayJudge(kinds, words, [0] * 8), 8)
    assert prompts == [[prompt(kind, color) for kind, color in chosen]]
    assert figures["object_right"] == pytest.approx(6 / 8)
    assert figures["color_right"] == pytest.approx(6 / 8)
    assert figures["both_right"] == pytest.approx(5 / 8)
    assert figures["unclear"] == pytest.approx(1 / 8)


def test_views_are_counted_on_recognised_samples_of_kinds_with_a_front(monkeypatch):
    prompts = asked(monkeypatch)
    judge = SayJudge([0, 1, 0, 3], [0] * 4, [0, 0, 2, 2])
    figures = evaluate_diffusion.evaluate_views(None, judge, 4)
    assert len(prompts) == 5
    assert not any("lamp" in text for texts in prompts for text in texts)
    assert all(text.endswith(", back view") for text in prompts[3])
    assert figures["no view words"]["front"] == pytest.approx(2 / 3)
    assert figures["back view"]["back"] == pytest.approx(1 / 3)
    assert figures["back view"]["recognised"] == pytest.approx(3 / 4)


@pytest.mark.parametrize(
    ("kinds", "views", "expected"),
    [
        ([1] * 12, [0, 0, 1, 1, 1, 2, 2, 2, 1, 1, 1, 0], (True, 1, False)),
        ([1] * 12, [0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0], (True, 2, True)),
        ([1] * 5 + [3] * 7, [0, 0, 1, 1, 1, 2, 2, 2, 1, 1, 1, 0], (False, 1, False)),
    ],
)
def test_a_turn(kinds, views, expected):
    verdict = judge_turn(SayJudge(kinds, [0] * 12, views), torch.zeros(12, 8, 8, 3), DESCRIPTORS[0], "cat")
    assert (verdict["recognised"], verdict["fronts"], verdict["janus"]) == expected
    assert verdict["descriptor_right"]


def test_a_kind_without_a_front_has_no_janus():
    verdict = judge_turn(SayJudge([2] * 12, [0] * 12, [0] * 12), torch.zeros(12, 8, 8, 3), DESCRIPTORS[1], "lamp")
    assert verdict["janus"] is None
    assert not verdict["descriptor_right"]


def test_distillation_in_2d_pulls_latents_to_what_the_model_says(tiny_model):
    """A guidance whose estimate is a constant must be reached."""
    wanted = torch.full((1, 4, 16, 16), 0.5)

    def guidance(picture, *_, **__):
        return {"loss_sds": (picture.permute(0, 3, 1, 2) - wanted).square().sum()}

    decoded = {}
    guidance.model = SimpleNamespace(
        image_size=lambda: 64, downsampling=4, decode=lambda latents: decoded.setdefault("latents", latents)
    )
    guidance.set_min_max_steps = lambda *_: None
    evaluate_distillation.distil_2d(
        guidance, torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), space="latents", steps=300, lr=0.05
    )
    torch.testing.assert_close(decoded["latents"], wanted, atol=0.02, rtol=0)


def test_the_judges_own_figures(small_renders):
    judge = Judge(["cat"] * 43, list(DESCRIPTORS), [True] * 43, (8, 8, 8, 8))
    figures = evaluate_judge(judge, small_renders)
    assert 0.0 <= figures["kind"] <= 1.0
    confusion = torch.tensor(figures["view_confusion_true_by_judged"])
    assert int(confusion.sum()) <= figures["pictures"]
    assert figures["view"] == pytest.approx(float(confusion.diag().sum() / confusion.sum()))
