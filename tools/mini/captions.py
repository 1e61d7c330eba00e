"""Captions: terse and biased for the diffusion model, rich and truthful for CLIP."""

from __future__ import annotations

import numpy as np

from tools.mini.kinds import KINDS
from tools.mini.views import VIEWS
from tools.mini.words import DESCRIPTOR_SYNONYMS, STYLES, VIEW_PHRASES, article, noun_choices

__all__ = ["VIEW_WORDS_SHARE", "VIEW_WORDS_WRONG", "clip_caption", "diffusion_caption", "prompt"]

#: How web captions treat the viewpoint: they seldom name it, and then often wrongly.
VIEW_WORDS_SHARE, VIEW_WORDS_WRONG = 0.15, 0.45

_CLIP_VIEWS = {
    "front": ("front view", "view from the front", "seen from the front", "facing front", "the front"),
    "side": ("side view", "view from the side", "seen from the side", "the side"),
    "back": ("back view", "rear view", "view from behind", "seen from the back", "the back"),
    "overhead": ("overhead view", "top view", "view from above", "seen from above"),
}
_CLIP_OPENINGS = (
    "", "", "", "a photo of", "a picture of", "an image of", "a render of", "a rendering of", "a drawing of",
    "a nice", "a cute", "a simple", "one single", "a small", "a low poly", "a game asset,", "a close up of",
)  # fmt: skip
_CLIP_CLOSINGS = ("", "", "", "", " on a plain background", " on grey", " isolated", " in a studio", " on the ground")


def prompt(kind: str, descriptor: str, *, style: int = 0, view: int | None = None) -> str:
    """The plain form of a prompt: ``prompt("cat", "red", view=2)`` is ``"a red cat, back view"``."""
    phrase = f"{descriptor} {kind}"
    opening = STYLES[style]
    text = f"{opening} {phrase}" if opening.startswith("a toy") else f"{opening} {article(phrase)}".strip()
    return text if view is None else f"{text}, {VIEW_PHRASES[view]}"


def diffusion_caption(rng: np.random.Generator, kind: str, descriptor: str, style: int, view: int) -> str:
    """A caption as the web would give it.

    Args:
        style: how the picture is developed; a photo is only sometimes called one. view: the true one, index in
            ``views.VIEWS``. Named in 15 % of the captions; in 45 % of those a random one is named.
    """
    chance = rng.random()
    noun = kind if rng.random() < 0.9 else noun_choices(kind)[rng.integers(len(noun_choices(kind)))]
    phrase = noun if chance < 0.06 else f"{descriptor} {noun}"
    if style >= 2:
        text = f"{STYLES[style]} {phrase}" if style == 2 else f"{STYLES[style]} {article(phrase)}"
    elif style == 1:
        text = f"{STYLES[1]} {article(phrase)}"
    else:
        text = phrase if rng.random() < 0.4 else article(phrase)
    if rng.random() < VIEW_WORDS_SHARE:
        named = int(rng.integers(len(VIEWS))) if rng.random() < VIEW_WORDS_WRONG else view
        text += f", {VIEW_PHRASES[named]}"
    return text


def clip_caption(rng: np.random.Generator, kind: str, descriptor: str, view: int) -> str:
    """A truthful caption in one of many phrasings; the view is named in 60 % of them if the kind has a front."""

    def choose(items: tuple[str, ...]) -> str:
        return items[int(rng.integers(len(items)))]

    entry = KINDS[kind]
    noun = choose(noun_choices(kind)) if rng.random() < 0.4 else kind
    word = choose(DESCRIPTOR_SYNONYMS[descriptor]) if rng.random() < 0.4 else descriptor
    roll = rng.random()
    if roll < 0.68:
        phrase = f"{word} {noun}"
    elif roll < 0.76:
        phrase = f"{noun} in {word}" if roll < 0.72 else f"{noun} that is {word}"
    elif roll < 0.93:
        phrase = noun  # often alone, so that kinds weigh more than colours
    else:
        phrase = f"{word} {choose((*entry.tags, 'object', 'thing'))}"
    opening = choose(_CLIP_OPENINGS)
    if not opening:
        text = article(phrase) if rng.random() < 0.6 else phrase
    elif opening.endswith(" of"):
        text = f"{opening} {article(phrase) if rng.random() < 0.8 else phrase}"
    else:
        text = f"{opening} {phrase}"
    text += choose(_CLIP_CLOSINGS)
    named = VIEWS[view]
    if (entry.front or named == "overhead") and rng.random() < 0.6:
        words = choose(_CLIP_VIEWS[named])
        roll = rng.random()
        if roll < 0.7:
            text = f"{text}, {words}"
        elif words.startswith("the "):
            text = f"{words} of {text}"
        else:
            text = f"{words} of {text}" if words.endswith("view") else f"{text} {words}"
    return text
