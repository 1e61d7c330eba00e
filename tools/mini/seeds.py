"""Which seeds belong to what: objects of the index, of training, of judging and of testing never coincide."""

from __future__ import annotations

import hashlib

__all__ = ["PURPOSES", "held_out_pairs", "instance_seed"]

PURPOSES = ("index", "train", "judge", "test", "clip")


def instance_seed(purpose: str, kind: str, index: int) -> int:
    """A seed below 2**63 for object ``index`` of a kind; the three highest bits of it name the purpose.

    Raises:
        ValueError: for an unknown purpose.
    """
    if purpose not in PURPOSES:
        raise ValueError(f"unknown purpose {purpose!r}; there are {', '.join(PURPOSES)}")
    digest = hashlib.sha256(f"{kind}/{index}".encode()).digest()
    return (PURPOSES.index(purpose) << 60) | (int.from_bytes(digest[:8], "big") >> 4)


def held_out_pairs(kinds: tuple[str, ...], colors: tuple[str, ...]) -> list[tuple[str, str]]:
    """(kind, colour) pairs that the diffusion model never sees together: one colour of each kind, two of every other.

    Args:
        kinds: in alphabetical order. colors: the names of the plain colours.
    """
    pairs = []
    for index, kind in enumerate(kinds):
        chosen = {index % len(colors)} | ({(3 * index + 5) % len(colors)} if index % 2 else set())
        pairs += [(kind, colors[at]) for at in sorted(chosen)]
    return pairs
