"""Where kinds sign up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from threestudio_redream.errors import RegistryError
from tools.mini.modelling.model import Maker

__all__ = ["KINDS", "Kind", "kind"]

Model = Callable[[Maker], None]


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Attributes:
        name: the noun of its captions. model: puts one instance into a :class:`Maker`.
        front: whether it has a side that everybody calls its front; it then faces +x.
        tags: words for a catalogue. synonyms: other nouns people use for it.
    """

    name: str
    model: Model
    front: bool
    tags: tuple[str, ...]
    synonyms: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {}


def kind(name: str, *, front: bool, tags: tuple[str, ...], synonyms: tuple[str, ...] = ()) -> Callable[[Model], Model]:
    """Decorator: ``@kind("cat", front=True, tags=("animal",))``.

    Raises:
        RegistryError: another model has that name.
    """

    def enter(model: Model) -> Model:
        if name in KINDS and KINDS[name].model is not model:
            raise RegistryError(
                "Two models have the same kind of object", received=name, fix="Give one of them another name."
            )
        KINDS[name] = Kind(name, model, front, tags, synonyms)
        return model

    return enter
