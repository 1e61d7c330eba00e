"""Curves and view scores as SVG, with their figures in words beside them."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

__all__ = ["curve", "rose"]

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 300, 130, 48, 16, 6
MAX_POINTS = 600


def curve(name: str, points: Sequence[tuple[float, float]]) -> str:
    """A figure over the steps; ``points`` are finite and not empty."""
    steps, values = zip(*points, strict=True)
    low, high = min(values), max(values)
    first, last = min(steps), max(steps)

    def at(step: float, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - 4) * (step - first) / max(last - first, 1e-9)
        y = TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / max(high - low, 1e-12)
        return f"{x:.1f},{y:.1f}"

    path = " ".join(at(*point) for point in points[:: max(len(points) // MAX_POINTS, 1)])
    floor = HEIGHT - BOTTOM
    caption = f"{html.escape(name)}: {low:.3g} to {high:.3g}, last {values[-1]:.3g}"
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{caption}">'
        f'<path class="axis" d="M{LEFT},{TOP}V{floor}H{WIDTH - 4}"/><polyline class="curve" points="{path}"/>'
        f'<text x="{LEFT - 4}" y="{TOP + 8}" text-anchor="end">{high:.2g}</text>'
        f'<text x="{LEFT - 4}" y="{floor}" text-anchor="end">{low:.2g}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 3}">{first:.0f}</text>'
        f'<text x="{WIDTH - 4}" y="{HEIGHT - 3}" text-anchor="end">step {last:.0f}</text>'
        f"</svg><figcaption>{html.escape(name)}, last {values[-1]:.3g}</figcaption></figure>"
    )


def rose(scores: Sequence[tuple[float, float]], caption: str) -> str:
    """Shares in [0, 1] by azimuth in degrees, 0 (the front) at the bottom, as seen from above."""
    radius, centre = 52.0, 65.0
    half = math.pi / max(len(scores), 1)
    sectors = ""
    for azimuth, share in scores:
        angle = math.radians(azimuth)
        reach = radius * min(max(share, 0.0), 1.0)
        ends = [
            f"{centre + reach * math.sin(angle + side):.1f},{centre + reach * math.cos(angle + side):.1f}"
            for side in (-half, half)
        ]
        sectors += f'<path class="sector" d="M{centre},{centre}L{ends[0]}L{ends[1]}Z"/>'
    said = ", ".join(f"{azimuth:.0f}°: {share:.0%}" for azimuth, share in scores)
    label = html.escape(f"{caption} {said}")
    return (
        f'<figure><svg viewBox="0 0 130 142" style="max-width: 12rem" role="img" aria-label="{label}">'
        f'<circle class="axis" cx="{centre}" cy="{centre}" r="{radius}"/>'
        f'<circle class="axis" cx="{centre}" cy="{centre}" r="{radius / 2}"/>{sectors}'
        f'<text x="{centre}" y="128" text-anchor="middle">front</text>'
        f'<text x="{centre}" y="10" text-anchor="middle">back</text></svg>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )
