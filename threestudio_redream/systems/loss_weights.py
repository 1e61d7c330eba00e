"""``system.loss`` has one weight per term, ``lambda_<term>``; a misspelt one would silently weigh nothing."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable

from threestudio_redream.errors import ConfigError

__all__ = ["KNOWN_TERMS", "check_loss_weights"]

PREFIX = "lambda_"
log = logging.getLogger("pytorch_lightning")

#: Terms of our guidances and systems. Those of other extensions are not known before they are computed.
KNOWN_TERMS = (
    "image",
    "lora",
    "opaque",
    "orient",
    "prior_latent",
    "prior_mask",
    "prior_normal",
    "prior_occupancy",
    "prior_rgb",
    "repulsion",
    "sds",
    "sparsity",
    "vsd",
    "z_variance",
)


def check_loss_weights(keys: Iterable[str]) -> None:
    """Look at the keys of ``system.loss`` before anything is computed.

    A key that is one of no known term may belong to another extension; one that nearly is a known term, or that lacks
    the prefix, is a slip.

    Raises:
        ConfigError: a slip, with the nearest weight there is.
    """
    for key in map(str, keys):
        term = key.removeprefix(PREFIX)
        if key != term:
            meant = [] if term in KNOWN_TERMS else difflib.get_close_matches(term, KNOWN_TERMS, n=1, cutoff=0.85)
        elif key in KNOWN_TERMS:
            meant = [key]
        else:
            found = difflib.get_close_matches(key, [PREFIX + known for known in KNOWN_TERMS], n=1, cutoff=0.85)
            meant = [name.removeprefix(PREFIX) for name in found]
        if meant:
            raise ConfigError(
                "No term has this weight",
                received=f"system.loss.{key}",
                fix=f"Did you mean system.loss.{PREFIX}{meant[0]}?",
            )
        if key == term:
            log.warning("system.loss.%s has no effect: weights are called lambda_<term>", key)
