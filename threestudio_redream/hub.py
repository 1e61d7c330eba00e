"""Files of models on the Hugging Face hub: fetched once, then local; and why they cannot be had.

"It is not there", "you may not have it" and "there is no network" are three problems with three cures, so each is an
error of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from threestudio_redream.errors import ConfigError

__all__ = [
    "HubError",
    "HubGatedError",
    "HubNotFoundError",
    "HubOfflineError",
    "cached",
    "explain",
    "fetch",
    "fetch_first",
    "offline",
]


class HubError(ConfigError):
    """A model cannot be had from the hub."""


class HubNotFoundError(HubError):
    """404: the hub has no such model, revision or file, or it is private or was withdrawn."""


class HubGatedError(HubError):
    """403: its owner wants terms to be accepted first."""


class HubOfflineError(HubError):
    """It is not on this machine, and the hub may not be asked or does not answer."""


def offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` (or its older form) keeps the hub from being asked."""
    setting = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return setting.upper() in ("1", "ON", "YES", "TRUE")


def cached(repository: str, patterns: Iterable[str], revision: str | None = None) -> Path | None:
    """Folder of the local copy of a repository; None if there is none, or it is known to be incomplete."""
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(repository, revision=revision, allow_patterns=list(patterns), local_files_only=True)
        )
    except (OSError, ValueError):  # not there, or no name that the hub could have given
        return None


def fetch(repository: str, patterns: Iterable[str], revision: str | None = None) -> Path:
    """Folder with a repository's files that match ``patterns``; what is not on this machine is downloaded.

    Raises:
        HubNotFoundError, HubGatedError, HubOfflineError: see there. HubError: anything else the hub answers.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))
    except Exception as cause:  # the hub's errors have no common base, and older releases use another HTTP library
        raise explain(cause, repository) from cause


def fetch_first(repositories: Sequence[str], patterns: Iterable[str]) -> Path:
    """As :func:`fetch`, from the first of several mirrors that hands the files out.

    Raises:
        HubError: of the kind that a user can do most about: offline, then gated, then not found.
    """
    refused: list[HubError] = []
    for repository in repositories:
        try:
            return fetch(repository, patterns)
        except HubOfflineError as error:  # the next mirror is just as far away
            if len(repositories) == 1:
                raise
            raise HubOfflineError(error.problem, received=list(repositories), fix=error.fix) from error
        except HubError as error:
            refused.append(error)
    worst = next((error for error in refused if isinstance(error, HubGatedError)), refused[0])
    if len(repositories) == 1:
        raise worst
    raise type(worst)(
        "; ".join(f"{name}: {error.problem}" for name, error in zip(repositories, refused)),
        received=list(repositories),
        fix=worst.fix,
    ) from worst


def explain(cause: BaseException, repository: str) -> HubError:
    """The error of this module that says what an exception of ``huggingface_hub`` means."""
    from huggingface_hub import errors

    if isinstance(cause, errors.GatedRepoError):  # a RepositoryNotFoundError, too
        return HubGatedError(
            "The model is gated: its owner wants its terms to be accepted",
            received=repository,
            fix="Open the model's page and accept them, run `hf auth login`, and start again; or name another model.",
        )
    gone = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.DisabledRepoError)
    if isinstance(cause, gone) or (
        isinstance(cause, errors.EntryNotFoundError) and not isinstance(cause, errors.LocalEntryNotFoundError)
    ):
        return HubNotFoundError(
            "The hub does not have it (404): misspelt, withdrawn, or private",
            received=repository,
            fix="Check the id, name a mirror or a local folder; for a private model run `hf auth login`.",
        )
    if isinstance(cause, errors.HFValidationError):
        return HubNotFoundError(
            "This is no model id", received=repository, fix="Give OWNER/NAME, a known name, or a local folder."
        )
    if isinstance(cause, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
        if offline():
            return HubOfflineError(
                "The model is not on this machine, and HF_HUB_OFFLINE is set",
                received=repository,
                fix="Unset HF_HUB_OFFLINE once to download it, or give a local folder.",
            )
        return HubOfflineError(
            "The model is not on this machine, and the hub does not answer",
            received=repository,
            fix="Check the network and the proxy, or copy the model here and give the folder.",
        )
    first = (str(cause).splitlines() or [""])[0]
    return HubError(
        f"The model cannot be had from the hub: {type(cause).__name__}: {first}",
        received=repository,
        fix="Try again later, or give a local folder.",
    )
