"""The verbs ``redream index ...``; :mod:`threestudio_redream.cli` adds them.

With ``--json`` each prints one JSON object on standard output and nothing else. Exit status as of ``redream``; besides,
``index verify`` ends with 1 if the index is not sound, and ``index build`` if not one asset could be used.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from threestudio_redream.retrieval.cli_common import Cache, Json, step_bars
from threestudio_redream.shipped import shipped

if TYPE_CHECKING:
    from threestudio_redream.retrieval.build.run import BuildSettings, SourceSpec

__all__ = ["index_app"]

index_app = typer.Typer(name="index", help="Build, change and check indexes of 3D assets.", no_args_is_help=True)

_SOURCE_HELP = "A folder of meshes, one 3D file, or the word objaverse."
IndexFolder = Annotated[Path, typer.Argument(help="Folder of the index.", show_default=False)]
ReadIndex = Annotated[Path, typer.Argument(help="Folder of the index.", show_default=False, callback=shipped)]
SourceName = Annotated[str, typer.Argument(metavar="SOURCE", help=_SOURCE_HELP, show_default=False)]
Table = Annotated[Path | None, typer.Option(help="CSV with a row per file; default: assets.csv in the folder.")]
Captions = Annotated[Path | None, typer.Option(help="Cap3D's CSV (uid,caption), for Objaverse.")]
Licence = Annotated[str, typer.Option(help="Licence of files for which nothing states one.")]
Author = Annotated[str, typer.Option(help="Author of files for which nothing states one.")]
Align = Annotated[bool, typer.Option("--align/--no-align", help="Look for the front of assets that state none.")]
CopyAssets = Annotated[bool, typer.Option("--copy-assets", help="Keep a copy of the files in the index.")]
Duplicates = Annotated[float, typer.Option(help="Cosine of the mean views from which an asset repeats another.")]
NonCommercial = Annotated[bool, typer.Option("--allow-non-commercial", help="Admit licences for that use only.")]
NoDerivatives = Annotated[bool, typer.Option("--allow-no-derivatives", help="Admit licences that forbid derivatives.")]
Unknown = Annotated[
    bool | None,
    typer.Option(
        "--allow-unknown-licence/--refuse-unknown-licence",
        help="Admit assets whose licence nobody stated. Default: yes for your own files, no for Objaverse.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Precision = Annotated[str, typer.Option(help="Of the encoder: float32, bfloat16 or float16.")]
BatchSize = Annotated[int, typer.Option(help="Pictures or texts that the encoder takes at a time.")]
ChunkSize = Annotated[int, typer.Option(help="Assets per unit of work; a kill loses one unit at most.")]
ExecutorName = Annotated[str, typer.Option("--executor", help="local, slurm (extra slurm) or ray (extra ray).")]
Workers = Annotated[int, typer.Option(help="Processes at a time; 0: one per core here.")]
Threads = Annotated[int, typer.Option(help="Threads of each worker.")]
Shard = Annotated[int | None, typer.Option(help="Do this shard only, from 0; needs --num-shards.")]
NumShards = Annotated[int | None, typer.Option(help="Number of shards.")]
Steps = Annotated[
    list[str] | None, typer.Option("--step", help="Do this step only: ingest, render, embed or index. Repeatable.")
]
Work = Annotated[Path | None, typer.Option(help="Work folder; default: .NAME.build beside the index.")]
KeepWork = Annotated[bool, typer.Option("--keep-work", help="Do not delete the work folder at the end.")]
Ann = Annotated[str | None, typer.Option(help="Also build an approximate index: faiss-hnsw, faiss-ivf or scann.")]


@index_app.command("build")
def build(
    source: SourceName,
    out: Annotated[Path, typer.Option(help="Folder of the index; made if needed.", show_default=False)],
    encoder: Annotated[str, typer.Option(help="mini, hf:ID_OR_FOLDER, or openclip:MODEL/WEIGHTS.")] = "mini",
    table: Table = None,
    captions: Captions = None,
    cache: Cache = None,
    licence: Licence = "",
    author: Author = "",
    views: Annotated[
        bool | None,
        typer.Option(
            "--views/--captions-only",
            help="Render all assets now, or when a query wants them. Default: now, but for Objaverse.",
            show_default=False,
        ),
    ] = None,
    align: Align = True,
    copy_assets: CopyAssets = False,
    dtype: Annotated[str, typer.Option(help="Of the stored vectors: float16, bfloat16 or float32.")] = "float16",
    precision: Precision = "float32",
    device: Device = "auto",
    batch_size: BatchSize = 32,
    chunk_size: ChunkSize = 64,
    duplicates: Duplicates = 0.995,
    allow_non_commercial: NonCommercial = False,
    allow_no_derivatives: NoDerivatives = False,
    unknown_licence: Unknown = None,
    executor: ExecutorName = "local",
    workers: Workers = 0,
    threads: Threads = 1,
    shard: Shard = None,
    num_shards: NumShards = None,
    step: Steps = None,
    work: Work = None,
    keep_work: KeepWork = False,
    ann: Ann = None,
    as_json: Json = False,
) -> None:
    """Build an index, or go on with a build that was interrupted.

    Assets that the index holds already, unchanged, are passed over. A file that cannot be used is listed in the index
    with the reason and stops nothing.
    """
    from threestudio_redream.retrieval.build.run import BuildSettings, SourceSpec
    from threestudio_redream.retrieval.views import DEFAULT_VIEWS

    wants_views = source != "objaverse" if views is None else views
    settings = BuildSettings(
        encoder=encoder,
        precision=precision,
        device=device,
        batch_size=batch_size,
        dtype=dtype,
        views=DEFAULT_VIEWS if wants_views else None,
        align=align,
        copy_assets=copy_assets,
        licences=_policy(source, allow_non_commercial, allow_no_derivatives, unknown_licence),
        chunk_size=chunk_size,
        duplicate_cosine=duplicates,
    )
    spec = SourceSpec(source, _text(table), _text(captions), _text(cache), licence, author)
    _prepare(spec)
    _build(
        spec, out, settings, executor, workers, threads, _shard(shard, num_shards), step, work, keep_work, ann, as_json
    )


@index_app.command("add")
def add(
    source: SourceName,
    index: Annotated[Path, typer.Option(help="Folder of the index.", show_default=False)],
    table: Table = None,
    captions: Captions = None,
    cache: Cache = None,
    licence: Licence = "",
    author: Author = "",
    align: Align = True,
    copy_assets: CopyAssets = False,
    precision: Precision = "float32",
    device: Device = "auto",
    batch_size: BatchSize = 32,
    chunk_size: ChunkSize = 64,
    duplicates: Duplicates = 0.995,
    allow_non_commercial: NonCommercial = False,
    allow_no_derivatives: NoDerivatives = False,
    unknown_licence: Unknown = None,
    executor: ExecutorName = "local",
    workers: Workers = 0,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Add a source to an index, with the encoder and the cameras of the index. Changed assets are replaced."""
    from threestudio_redream.retrieval.build.run import BuildSettings, SourceSpec, settings_of_index

    settings = settings_of_index(
        index,
        BuildSettings(
            precision=precision,
            device=device,
            batch_size=batch_size,
            align=align,
            copy_assets=copy_assets,
            licences=_policy(source, allow_non_commercial, allow_no_derivatives, unknown_licence),
            chunk_size=chunk_size,
            duplicate_cosine=duplicates,
        ),
    )
    spec = SourceSpec(source, _text(table), _text(captions), _text(cache), licence, author)
    _prepare(spec)
    _build(spec, index, settings, executor, workers, threads, None, None, None, False, None, as_json)


@index_app.command("remove")
def remove(
    index: IndexFolder,
    asset_ids: Annotated[list[str], typer.Argument(help="Ids of assets, as a search shows them.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Take assets out of an index."""
    from threestudio_redream.retrieval.index.writer import IndexWriter

    manifest = IndexWriter(index).remove(asset_ids)
    _say(as_json, {"index": str(index), "removed": len(set(asset_ids)), "assets": manifest.rows}, "assets left")


@index_app.command("merge")
def merge(
    index: IndexFolder,
    other: Annotated[Path, typer.Argument(help="Index whose assets are added; it is left as it is.")],
    conflict: Annotated[
        str, typer.Option(help="If both have an id with different values: error, keep (ours) or replace.")
    ] = "error",
    as_json: Json = False,
) -> None:
    """Add all assets of another index of the same encoder and cameras."""
    from threestudio_redream.retrieval.index.writer import IndexWriter

    if conflict not in ("error", "keep", "replace"):
        raise typer.BadParameter("Use error, keep or replace.", param_hint="--conflict")
    manifest = IndexWriter(index).merge(other, conflict)  # type: ignore[arg-type]
    _say(as_json, {"index": str(index), "merged": str(other), "assets": manifest.rows}, "assets now")


@index_app.command("info")
def info(
    index: ReadIndex,
    rejected: Annotated[bool, typer.Option("--rejected", help="List the refused files, with reasons.")] = False,
    as_json: Json = False,
) -> None:
    """Say what an index holds and how it was made."""
    from threestudio_redream.retrieval.index.reader import Index

    opened = Index.open(index, check="quick")
    values = opened.info()
    if rejected:
        values["refused"] = list(opened.rejected())
    if as_json:
        typer.echo(json.dumps(values, indent=1))
        return
    encoder, calibration = values["encoder"], values["calibration"]
    size = values["bytes"] / 1e6
    typer.echo(f"{index}: {values['assets']} assets ({values['assets_with_views']} with views), {size:.1f} MB")
    typer.echo(f"encoder      {encoder['name']}, {encoder['dim']} numbers, fingerprint {encoder['fingerprint'][:16]}")
    typer.echo(f"views        {values['views_per_asset']} per asset, stored as {values['dtype']}")
    typer.echo(
        f"refused      {values['rejected']} files{'' if rejected or not values['rejected'] else '; why: --rejected'}"
    )
    for line in values.get("refused", ()):
        words = ", ".join(f"{key}: {value}" for key, value in line.items())
        typer.echo("  " + "".join(letter if letter.isprintable() else "?" for letter in words))
    typer.echo(f"threshold    {json.dumps(calibration) if calibration else 'not calibrated'}")
    typer.echo(f"approximate  {json.dumps(values['ann']) if values['ann'] else 'no; search is exact'}")


@index_app.command("verify")
def verify(
    index: ReadIndex,
    encoder: Annotated[
        bool, typer.Option("--encoder/--no-encoder", help="Also embed some captions again and compare.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Check every file of an index. The exit status is 1 if something is wrong."""
    from threestudio_redream.errors import RedreamError
    from threestudio_redream.retrieval.encoders import open_encoder
    from threestudio_redream.retrieval.index.manifest import read_manifest
    from threestudio_redream.retrieval.index.verify import verify_index

    opened, problems = None, list[RedreamError]()
    try:
        name = read_manifest(index).spec.encoder.name
        try:
            opened = open_encoder(name, texts_only=True) if encoder else None
        except RedreamError as error:  # the files are checked all the same
            problems.append(error)
        problems += verify_index(index, opened)
    except RedreamError as error:
        problems.append(error)
    if as_json:
        rows = [
            {
                "file": getattr(problem, "file", ""),
                "kind": getattr(problem, "kind", type(problem).__name__),
                "problem": str(problem),
            }
            for problem in problems
        ]
        typer.echo(json.dumps({"index": str(index), "ok": not problems, "problems": rows}, indent=1))
    else:
        for problem in problems:
            typer.echo(str(problem), err=True)
        typer.echo(f"{index}: {f'{len(problems)} problems' if problems else 'sound'}")
    if problems:
        raise typer.Exit(1)


def _build(
    source: SourceSpec,
    out: Path,
    settings: BuildSettings,
    executor: str,
    workers: int,
    threads: int,
    shard: tuple[int, int] | None,
    steps: list[str] | None,
    work: Path | None,
    keep_work: bool,
    ann: str | None,
    as_json: bool,
) -> None:
    from threestudio_redream.executors import open_executor
    from threestudio_redream.retrieval.build.plan import work_folder
    from threestudio_redream.retrieval.build.run import STEPS, build_index

    runner = open_executor(
        executor, workers=workers or (os.cpu_count() or 1), folder=(work or work_folder(out)) / "submitit"
    )
    with step_bars(as_json) as progress:
        summary = build_index(
            source,
            out,
            settings,
            steps=steps or STEPS,
            shard=shard,
            executor=runner,
            threads=threads,
            work=work,
            keep_work=keep_work,
            progress=progress,
        )
    if ann is not None and "assets" in summary:
        from threestudio_redream.retrieval.index.ann import build_ann

        entry = build_ann(out, ann)
        summary["ann"] = {"kind": entry.kind, "recall": entry.recall}
    if settings.precision != "float32" and "assets" in summary:
        from threestudio_redream.retrieval.encoders import dtype_error

        summary["precision_error"] = dtype_error(settings.encoder, settings.precision, device=settings.device)
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
    elif "assets" in summary:
        reasons = ", ".join(f"{count} {stage}" for stage, count in sorted(summary["reasons"].items()))
        typer.echo(
            f"{out}: {summary['assets']} assets; {summary['added']} added, {summary['unchanged']} unchanged, "
            f"{summary['rejected']} refused{f' ({reasons})' if reasons else ''}, {summary['seconds']:.1f} s"
        )
    else:
        typer.echo(f"{summary['work']}: {summary['chunks_done']} of {summary['chunks']} chunks are done")
    if summary.get("assets") == 0:
        typer.echo("redream: not one asset could be used; redream index info --rejected says why", err=True)
        raise typer.Exit(1)


def _prepare(source: SourceSpec) -> None:
    """Objaverse states licences in a catalogue of its own, which is fetched once."""
    opened: Any = source.open()
    if hasattr(opened, "prepare"):
        opened.prepare()


def _policy(source: str, non_commercial: bool, no_derivatives: bool, unknown: bool | None) -> Any:
    """None: what the source admits by default."""
    if not (non_commercial or no_derivatives) and unknown is None:
        return None
    from threestudio_redream.retrieval.curation.licences import LicencePolicy

    admits_unknown = source != "objaverse" if unknown is None else unknown
    return LicencePolicy(non_commercial=non_commercial, no_derivatives=no_derivatives, unknown=admits_unknown)


def _shard(shard: int | None, num_shards: int | None) -> tuple[int, int] | None:
    if (shard is None) != (num_shards is None):
        raise typer.BadParameter("--shard and --num-shards go together.", param_hint="--shard")
    return None if shard is None or num_shards is None else (shard, num_shards)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _say(as_json: bool, values: dict[str, Any], what: str) -> None:
    typer.echo(json.dumps(values, indent=1) if as_json else f"{values['index']}: {values['assets']} {what}")
