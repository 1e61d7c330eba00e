"""What a surface looks like: a colour, a gradient, a metal, a picture, or a tiled texture."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["CREAM", "DARK", "Color", "Flat", "Gradient", "Metal", "Paint", "Picture", "Texture", "shade"]

Float = NDArray[np.float64]
#: sRGB-encoded, 0 to 1.
Color = tuple[float, float, float]

DARK: Color = (0.13, 0.13, 0.16)
CREAM: Color = (0.93, 0.88, 0.77)


def shade(color: Color, factor: float) -> Color:
    """Darker below 1; above 1 the colour goes towards white by the excess (1.3: by 30 %)."""
    values = np.asarray(color) * min(factor, 1.0)
    values = values + (1.0 - values) * max(factor - 1.0, 0.0)
    return (float(values[0]), float(values[1]), float(values[2]))


@dataclass(frozen=True)
class Flat:
    """One colour."""

    color: Color

    def colors(self, vertices: Float, normals: Float) -> Float:
        return np.broadcast_to(np.asarray(self.color), vertices.shape)


@dataclass(frozen=True)
class Gradient:
    """From ``bottom`` to ``top`` over the height of the solid."""

    bottom: Color
    top: Color

    def colors(self, vertices: Float, normals: Float) -> Float:
        height = vertices[:, 2:]
        share = (height - height.min()) / max(float(np.ptp(height)), 1e-9)
        return np.asarray(self.bottom) + share * (np.asarray(self.top) - np.asarray(self.bottom))


@dataclass(frozen=True)
class Metal:
    """Polished metal: the sky and a dark horizon reflected by normal, fixed in the world.

    The colour depends on the normal alone, not on the viewer, so a radiance field can hold it.
    """

    dark: Color
    middle: Color
    bright: Color

    def colors(self, vertices: Float, normals: Float) -> Float:
        height = normals @ np.array([0.40, 0.25, 0.88])
        stops = np.array([-1.0, -0.25, 0.15, 0.55, 0.80, 1.0])
        ramp = np.array([self.middle, self.dark, self.middle, self.middle, self.bright, self.bright])
        return np.stack([np.interp(height, stops, ramp[:, channel]) for channel in range(3)], axis=1)


@dataclass(frozen=True, eq=False)
class Texture:
    """An image that tiles, laid on along the axis that each face looks along most.

    Attributes:
        image: ``[H, W, 3]`` uint8, sRGB. Rows run down: bands across the image become level bands on an object.
        period: edge of a tile, in units of the finished model (its radius is 0.5).
    """

    image: NDArray[np.uint8] = field(repr=False)
    period: float = 0.4


@dataclass(frozen=True, eq=False)
class Picture:
    """An image shown once, on a solid that has texture coordinates (``plate``). ``[H, W, 3]`` uint8, sRGB."""

    image: NDArray[np.uint8] = field(repr=False)


Paint = Flat | Gradient | Metal | Texture | Picture
