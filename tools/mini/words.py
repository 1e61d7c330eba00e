"""Every word of the mini lab's language and the phrases made of them."""

from __future__ import annotations

from collections.abc import Sequence

from tools.mini.descriptors import DESCRIPTORS
from tools.mini.kinds import KINDS, load_kinds

__all__ = ["DESCRIPTOR_SYNONYMS", "STYLES", "VIEW_PHRASES", "article", "corpus", "noun_choices"]

#: What people also write for a descriptor.
DESCRIPTOR_SYNONYMS: dict[str, tuple[str, ...]] = {
    "red": ("crimson", "scarlet", "ruby"),
    "orange": ("tangerine", "amber"),
    "yellow": ("lemon", "canary"),
    "green": ("emerald", "leafy"),
    "blue": ("azure", "cobalt", "navy"),
    "purple": ("violet", "lilac"),
    "pink": ("rosy", "rose"),
    "brown": ("chocolate", "hazel"),
    "wooden": ("wood", "timber", "oak"),
    "golden": ("gold", "gilded", "brass"),
    "stone": ("granite", "rock"),
    "striped": ("stripy", "banded"),
    "dotted": ("spotted", "speckled"),
    "checkered": ("chequered", "checked"),
}
#: Phrase before the object -> how its picture is developed, see :mod:`tools.mini.pictures`.
STYLES = ("", "a photo of", "a toy", "a clay model of")
#: View words as threestudio appends them, by index of ``views.VIEWS``.
VIEW_PHRASES = ("front view", "side view", "back view", "overhead view")
_GLUE = (
    "a an the of photo picture image render rendering drawing toy clay model plain isolated single one small little "
    "big large nice simple from with in on and seen looking at shot view front side back overhead top behind above "
    "left right rear facing colored coloured color colour made painted pattern style it its that is which object thing "
    "background grey white ground studio low poly game asset cute beautiful close up my your this some"
)


def article(phrase: str) -> str:
    """The phrase with a or an."""
    return f"{'an' if phrase[:1] in 'aeiou' else 'a'} {phrase}"


def noun_choices(name: str) -> tuple[str, ...]:
    """The name of a kind and its synonyms."""
    return (name, *KINDS[name].synonyms)


def corpus() -> Sequence[str]:
    """Every word, for the tokenizer: names, synonyms, descriptors, view and filler words."""
    words = [*_GLUE.split(), *DESCRIPTORS, *(word for words in DESCRIPTOR_SYNONYMS.values() for word in words)]
    for name in load_kinds():
        words += [word for noun in noun_choices(name) for word in noun.replace("-", " ").split()]
        words += [word for tag in KINDS[name].tags for word in tag.split()]
    return sorted(set(words))
