"""What is installed, for commands that a message tells people to type."""

from __future__ import annotations

import importlib.metadata

__all__ = ["keep_torch"]


def keep_torch() -> str:
    """Further words for a pip command that would otherwise bring a newer torch, of another build."""
    try:
        return f" 'torch=={importlib.metadata.version('torch')}'"
    except importlib.metadata.PackageNotFoundError:
        return ""
