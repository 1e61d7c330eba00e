"""A tiny anti-aliased painter on numpy arrays, for the texture of the sample asset."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Canvas", "Color", "PixelRect"]

Color = tuple[int, int, int]
#: Left, top, width, height in pixels.
PixelRect = tuple[int, int, int, int]


class Canvas:
    """sRGB-encoded colours, painted over one another; shapes are clipped to the region of the canvas."""

    def __init__(self, size: int) -> None:
        self.pixels = np.zeros((size, size, 3))
        self._row, self._column = (axis + 0.5 for axis in np.mgrid[:size, :size].astype(np.float64))

    def _blend(self, distance: NDArray[np.float64], color: Color, clip: PixelRect, opacity: float) -> None:
        """Paint where ``distance`` (pixels, negative inside) says so."""
        left, top, width, height = clip
        window = (slice(top, top + height), slice(left, left + width))
        coverage = opacity * np.clip(0.5 - distance[window], 0.0, 1.0)[..., None]
        self.pixels[window] += coverage * (np.array(color, np.float64) / 255.0 - self.pixels[window])

    def fill(self, clip: PixelRect, color: Color, shade: float = 0.0) -> None:
        """A flat colour that darkens by the share ``shade`` from the top to the bottom."""
        left, top, width, height = clip
        ramp = 1.0 - shade * np.linspace(0.0, 1.0, height)[:, None, None]
        self.pixels[top : top + height, left : left + width] = np.array(color, np.float64) / 255.0 * ramp

    def box(
        self,
        clip: PixelRect,
        centre: tuple[float, float],
        half: tuple[float, float],
        corner: float,
        color: Color,
        opacity: float = 1.0,
    ) -> None:
        """A rectangle with rounded corners; ``centre`` relative to the region, all in pixels."""
        dx = np.abs(self._column - clip[0] - centre[0]) - half[0] + corner
        dy = np.abs(self._row - clip[1] - centre[1]) - half[1] + corner
        distance = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - corner
        self._blend(distance, color, clip, opacity)

    def disc(
        self, clip: PixelRect, centre: tuple[float, float], radius: float, color: Color, opacity: float = 1.0
    ) -> None:
        distance = np.hypot(self._column - clip[0] - centre[0], self._row - clip[1] - centre[1]) - radius
        self._blend(distance, color, clip, opacity)

    def arc(
        self, clip: PixelRect, centre: tuple[float, float], radius: float, width: float, below: float, color: Color
    ) -> None:
        """The part of a ring that lies at least ``below`` pixels under its centre: a smile."""
        dx, dy = self._column - clip[0] - centre[0], self._row - clip[1] - centre[1]
        ring = np.abs(np.hypot(dx, dy) - radius) - 0.5 * width
        self._blend(np.maximum(ring, below - dy), color, clip, 1.0)

    def stripes(
        self, clip: PixelRect, period: float, width: float, slant: float, color: Color, opacity: float = 1.0
    ) -> None:
        """Parallel bands: ``slant`` 0 across the region, 1 at 45 degrees."""
        phase = (self._row - clip[1] + slant * (self._column - clip[0])) % period
        scale = np.hypot(1.0, slant)
        self._blend((np.abs(phase - 0.5 * period) - 0.5 * width) / scale, color, clip, opacity)

    def rgba(self) -> NDArray[np.uint8]:
        """``[size, size, 4]`` uint8, opaque."""
        rgb = np.rint(np.clip(self.pixels, 0.0, 1.0) * 255.0).astype(np.uint8)
        return np.concatenate([rgb, np.full((*rgb.shape[:2], 1), 255, np.uint8)], axis=-1)
