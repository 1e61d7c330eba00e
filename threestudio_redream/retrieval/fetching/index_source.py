"""Where the assets of an Objaverse index come from, under the licences that it was built for."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from threestudio_redream.retrieval.curation.licences import LicencePolicy
from threestudio_redream.retrieval.errors import RetrievalError
from threestudio_redream.retrieval.fetching.on_demand import OnDemandViews
from threestudio_redream.retrieval.sources import ObjaverseSource
from threestudio_redream.retrieval.types import Encoder
from threestudio_redream.retrieval.views import DEFAULT_VIEWS, ViewSpec

__all__ = ["source_of_index", "views_on_demand"]


def source_of_index(spec: Any, cache: Path | None = None) -> ObjaverseSource:
    """The source of an index's assets.

    Args:
        spec: of the index's manifest. cache: folder of downloads; None is the source's own.

    Raises:
        RetrievalError: the index does not say which licences it was built for.
    """
    said = spec.settings.get("licences")
    known = {field.name for field in fields(LicencePolicy)}
    if said is not None and not (
        isinstance(said, dict) and said.keys() <= known and all(type(value) is bool for value in said.values())
    ):
        raise RetrievalError(
            "the index does not say which licences it was built for", received=said, fix="Build it again"
        )
    return ObjaverseSource(cache=cache, policy=None if said is None else LicencePolicy(**said))


def views_on_demand(spec: Any, encoder: Encoder, cache: Path | None = None) -> OnDemandViews:
    """Fetches, renders and embeds what a search looks at; see :class:`OnDemandViews`."""
    source = source_of_index(spec, cache)
    views = ViewSpec.from_json(spec.cameras) if spec.cameras else DEFAULT_VIEWS
    return OnDemandViews(source, encoder, views=views, cache=source.cache / "views")
