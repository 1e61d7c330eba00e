"""The verbs ``redream search`` and ``redream fetch``; :mod:`threestudio_redream.cli` adds them.

With ``--json`` each prints one JSON object on standard output and nothing else. A search that finds nothing similar is
no failure: its outcome says so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from threestudio_redream.retrieval.cli_common import Cache, Json, count_bar
from threestudio_redream.shipped import shipped

__all__ = ["fetch", "search"]


def search(
    query: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    index: Annotated[Path, typer.Option(help="Folder of the index.", show_default=False, callback=shipped)],
    count: Annotated[int, typer.Option("-n", "--count", help="Number of assets.")] = 3,
    pool: Annotated[int, typer.Option(help="Assets that the captions choose for the ranking by views.")] = 100,
    rank: Annotated[str, typer.Option(help="By the mean or the max over the views.")] = "mean",
    encoder: Annotated[str, typer.Option(help="Encoder, if the index names one that is elsewhere here.")] = "",
    cache: Cache = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Fetch nothing: rank by captions what has no views.")
    ] = False,
    approximate: Annotated[bool, typer.Option("--approximate", help="Use the approximate index.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="Also write a contact sheet (PNG).")] = None,
    as_json: Json = False,
) -> None:
    """Find the assets that a text describes: first by captions, then by views.

    "nothing_similar" is an outcome, not an error: the best score is below the threshold of the index.
    """
    from threestudio_redream.retrieval.encoders import open_encoder
    from threestudio_redream.retrieval.fetching.index_source import views_on_demand
    from threestudio_redream.retrieval.index.manifest import read_manifest
    from threestudio_redream.retrieval.index.reader import Index

    if rank not in ("mean", "max"):
        raise typer.BadParameter("Use mean or max.", param_hint="--rank")
    spec = read_manifest(index).spec
    opened = open_encoder(encoder or spec.encoder.name, texts_only=True)
    found = Index.open(index, opened)
    view_source = None
    if spec.settings.get("source") == "objaverse" and not offline:
        view_source = views_on_demand(spec, opened, cache)
    result = found.search(
        query, count, pool=pool, rank=rank, view_source=view_source, approximate=approximate  # type: ignore[arg-type]
    )  # fmt: skip
    if sheet is not None:
        from threestudio_redream.retrieval.sheet import write_sheet

        write_sheet(sheet, found, result)
    if as_json:
        typer.echo(json.dumps(result.to_json(), indent=1))
        return
    for number, hit in enumerate(result.results, start=1):
        row = hit.to_json()
        image = "-" if row["score_image"] is None else f"{row['score_image']:.3f}"
        front = "" if row["front_deg"] is None else f", front {row['front_deg']:.0f} deg"
        typer.echo(
            f"{number}. {row['name']}  [{row['asset_id']}]\n"
            f"   image {image}, text {row['score_text']:.3f}, {row['licence'] or 'licence unknown'}"
            f"{', ' + row['author'] if row['author'] else ''}{front}"
        )
    if result.outcome != "ok":
        typer.echo(f"Nothing similar enough: the best score is below {result.threshold:.3f}.")
    typer.echo(f"{result.took_ms:.1f} ms", err=True)


def fetch(
    index: Annotated[Path, typer.Option(help="Index of assets that are fetched on demand.", show_default=False)],
    query: Annotated[str, typer.Option(help="Fetch what a search with this text would look at.")] = "",
    asset_id: Annotated[list[str] | None, typer.Option("--id", help="Fetch this asset. Repeatable.")] = None,
    pool: Annotated[int, typer.Option(help="Assets that a search would look at.")] = 100,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only list files, bytes and licences; download nothing.")
    ] = False,
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Download assets ahead of a search, or say what that would download."""
    from threestudio_redream.retrieval.encoders import open_encoder
    from threestudio_redream.retrieval.errors import RetrievalError
    from threestudio_redream.retrieval.fetching.index_source import source_of_index
    from threestudio_redream.retrieval.fetching.plan import fetch as fetch_all
    from threestudio_redream.retrieval.fetching.plan import plan_fetch
    from threestudio_redream.retrieval.index.manifest import read_manifest
    from threestudio_redream.retrieval.index.reader import Index

    if bool(query) == bool(asset_id):
        raise typer.BadParameter("Give --query TEXT or --id ID.", param_hint="--query")
    spec = read_manifest(index).spec
    if spec.settings.get("source") != "objaverse":
        raise RetrievalError(
            "The assets of this index are not fetched from anywhere",
            received=spec.settings.get("source"),
            fix="Its files lie in the folder that it was built from",
        )
    if query:
        found = Index.open(index, open_encoder(spec.encoder.name, texts_only=True))
        records = [hit.record for hit in found.search(query, pool, pool=pool).results]
    else:
        found = Index.open(index)
        records = [found.record(name) for name in asset_id or []]
    source = source_of_index(spec, cache)
    if plan:
        planned = plan_fetch(source, records)
        typer.echo(json.dumps(planned.to_json(), indent=1) if as_json else planned.to_text())
        return
    with count_bar("fetching", as_json) as tick:
        done = fetch_all(source, records, tick)
    values = {"paths": {name: str(path) for name, path in done.paths.items()}, "failures": done.failures}
    if as_json:
        typer.echo(json.dumps(values, indent=1))
    else:
        for name, reason in done.failures.items():
            typer.echo(f"{name}: {reason}", err=True)
        typer.echo(f"{len(done.paths)} files are here, {len(done.failures)} could not be fetched")
    if not done.paths:
        raise typer.Exit(1)
