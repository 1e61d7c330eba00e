"""The names that threestudio code star-imports for annotations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from typing import Any, Dict, List, Literal, NamedTuple, NewType, Optional, Tuple, Type, TypeVar, Union  # noqa: UP035

from jaxtyping import Bool, Complex, Float, Inexact, Int, Integer, Num, Shaped, UInt
from omegaconf import DictConfig
from torch import Tensor

__all__ = [
    "Any",
    "Bool",
    "Callable",
    "Complex",
    "Dict",
    "DictConfig",
    "Float",
    "Inexact",
    "Int",
    "Integer",
    "Iterable",
    "List",
    "Literal",
    "NamedTuple",
    "NewType",
    "Num",
    "Optional",
    "Shaped",
    "Sized",
    "Tensor",
    "Tuple",
    "Type",
    "TypeVar",
    "UInt",
    "Union",
    "typechecker",
]


def typechecker(function: Any) -> Any:
    """Run-time checks are switched on for whole packages by ``--typecheck``; alone this does nothing."""
    return function
