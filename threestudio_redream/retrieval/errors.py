"""Named errors of retrieval. Like all of ours they say what was wrong, the value received, and what to do."""

from __future__ import annotations

from threestudio_redream.errors import RedreamError

__all__ = [
    "FetchError",
    "IndexBusyError",
    "IndexDamagedError",
    "IndexMismatchError",
    "RetrievalError",
    "SourceError",
]


class RetrievalError(RedreamError, ValueError):
    """Base of what goes wrong between a source of assets and a search result."""


class IndexDamagedError(RetrievalError):
    """A file of an index is missing, changed, swapped, foreign or malformed.

    Args:
        file: the file below the index folder, with forward slashes; it leads the message.
        kind: ``missing``, ``changed``, ``swapped``, ``extra`` or ``malformed``.
    """

    def __init__(
        self, problem: str, *, file: str, kind: str = "malformed", received: object = ..., fix: str = ""
    ) -> None:
        self.file, self.kind = file, kind
        super().__init__(f"{file}: {problem}", received=received, fix=fix)


class IndexMismatchError(RetrievalError):
    """The vectors were made by another model, or by the same model with other preprocessing or cameras."""


class IndexBusyError(RetrievalError):
    """Another process is writing to the index."""


class SourceError(RetrievalError):
    """A library of assets, its captions or its sidecar files cannot be used."""


class FetchError(RetrievalError):
    """A download failed, or gave something else than the asset it was to give."""
