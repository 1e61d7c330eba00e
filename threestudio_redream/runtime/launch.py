"""The launcher: ``python launch.py --config FILE [--train|--validate|--test|--export] key=value ...``

Flags are those of upstream's ``launch.py``. ``--train`` is the default, and ends with test and
export; ``--gpu`` also accepts ``cpu`` and ``auto``.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from threestudio_redream.errors import CheckpointError, RedreamError
from threestudio_redream.runtime.threads import let_threads_wait

__all__ = ["build_parser", "main", "run"]

log = logging.getLogger("pytorch_lightning")


def build_parser() -> argparse.ArgumentParser:
    """Command-line parser; unknown arguments are configuration overrides."""
    parser = argparse.ArgumentParser(
        prog="launch.py",
        description="Run a threestudio configuration.",
        epilog="Any further key=value overrides the configuration.",
    )
    parser.add_argument(
        "--config",
        required=True,
        action="append",
        help="yaml file; repeat to merge several, the last wins. custom_configs/... is found from everywhere",
    )
    parser.add_argument(
        "--gpu",
        default="0",
        help="a CUDA index such as 0; or cpu, mps, auto. Without CUDA the best device present is used",
    )
    stage = parser.add_mutually_exclusive_group()
    stage.add_argument("--train", action="store_true", help="train, then test and export (the default)")
    stage.add_argument(
        "--validate", action="store_true", help="render the validation views of a checkpoint (resume=...)"
    )
    stage.add_argument("--test", action="store_true", help="render the test views of a checkpoint (resume=...)")
    stage.add_argument("--export", action="store_true", help="export the mesh of a checkpoint (resume=...)")
    parser.add_argument("--verbose", action="store_true", help="also show debug messages")
    parser.add_argument("--typecheck", action="store_true", help="check tensor shapes at run time (needs typeguard)")
    parser.add_argument("--traceback", action="store_true", help="show the full traceback of configuration errors")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse ``argv`` and run. Returns the exit status: 0, or 2 after a named error."""
    args, overrides = build_parser().parse_known_args(argv)
    let_threads_wait()
    _set_up_logging(args.verbose)
    try:
        run(args, overrides)
    except RedreamError as error:
        if args.traceback:
            raise
        log.error("%s: %s", type(error).__name__, error)
        return 2
    except KeyboardInterrupt:
        log.error("Quit. Continue later with: --config TRIAL/configs/parsed.yaml resume=last")
        return 130
    return 0


def run(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Build everything a configuration names, and run one stage."""
    accelerator = _select_device(args.gpu)

    import pytorch_lightning as pl

    from threestudio_redream.runtime.memory import keep_freed_memory

    if accelerator == "cpu":
        keep_freed_memory()
    if args.typecheck:
        _check_types()

    import threestudio_redream  # noqa: F401  (makes the names known)
    from threestudio_redream.preflight import preflight
    from threestudio_redream.runtime.checkpoint import resolve_checkpoint
    from threestudio_redream.runtime.config import load_config
    from threestudio_redream.runtime.device import get_rank, set_device
    from threestudio_redream.runtime.extensions import load_custom_modules
    from threestudio_redream.runtime.out_of_memory import advise_when_out_of_memory
    from threestudio_redream.runtime.stand_in import install
    from threestudio_redream.shipped import shipped

    install()  # extensions written for upstream import threestudio
    load_custom_modules()
    args.config = [str(shipped(name)) for name in args.config]
    cfg = load_config(*args.config, cli_args=overrides)
    checkpoint = resolve_checkpoint(cfg.resume, cfg.trial_dir)
    training = not (args.validate or args.test or args.export)
    if cfg.resume is not None and checkpoint is None and not training:
        raise CheckpointError(
            "This trial has no checkpoint",
            received=cfg.trial_dir,
            fix="Give the trial's own configuration (configs/parsed.yaml), or resume=FILE.",
        )
    if cfg.resume is not None and checkpoint is None:
        log.warning("No checkpoint in %s: starting at step 0", cfg.trial_dir)
    cfg.resume = None if checkpoint is None else str(checkpoint)
    preflight(cfg, training=training)
    set_device("cuda:0" if accelerator == "cuda" else accelerator)
    pl.seed_everything(cfg.seed + get_rank(), workers=True, verbose=False)
    with advise_when_out_of_memory(cfg):
        _run_stage(args, cfg, checkpoint, accelerator)


def _run_stage(args: argparse.Namespace, cfg: Any, checkpoint: Any, accelerator: str) -> None:
    from threestudio_redream.runtime.registry import find

    training = not (args.validate or args.test or args.export)
    datamodule = find(cfg.data_type)(cfg.data)
    system = find(cfg.system_type)(cfg.system, resumed=checkpoint is not None)
    system.set_save_dir(os.path.join(cfg.trial_dir, "save"))
    trainer = _make_trainer(args, cfg, system, training, accelerator)
    log.info("Trial folder: %s (device: %s)", cfg.trial_dir, accelerator)

    if training:
        _train(trainer, system, datamodule, cfg)
        return
    if checkpoint is not None:
        from threestudio_redream.runtime.checkpoint import read_checkpoint

        state = read_checkpoint(checkpoint)
        system.set_resume_status(int(state["epoch"]), int(state["global_step"]))
    else:
        log.warning("No checkpoint given (resume=...): running with untrained weights")
    stage = trainer.validate if args.validate else trainer.test if args.test else trainer.predict
    stage(system, datamodule=datamodule, ckpt_path=cfg.resume)


def _train(trainer: Any, system: Any, datamodule: Any, cfg: Any) -> None:
    from threestudio_redream.runtime.files import remove_leftovers
    from threestudio_redream.runtime.interrupt import graceful_interrupt
    from threestudio_redream.runtime.trial import snapshot_code, write_command

    if trainer.is_global_zero:
        remove_leftovers(cfg.trial_dir)
        write_command(cfg.trial_dir, sys.argv)
        snapshot_code(os.path.join(cfg.trial_dir, "code"))
    with graceful_interrupt(trainer):
        try:
            trainer.fit(system, datamodule=datamodule, ckpt_path=cfg.resume)
        except SystemExit as cause:  # newer Lightning turns a KeyboardInterrupt into an exit
            if trainer.interrupted:
                raise KeyboardInterrupt from cause
            raise
    if trainer.interrupted:
        raise KeyboardInterrupt
    system.set_resume_status(system.current_epoch, trainer.global_step)
    trainer.test(system, datamodule=datamodule, verbose=False)
    if getattr(system, "export_after_training", False):
        trainer.predict(system, datamodule=datamodule, return_predictions=False)


def _make_trainer(args: argparse.Namespace, cfg: Any, system: Any, training: bool, accelerator: str) -> Any:
    from pytorch_lightning import Trainer
    from pytorch_lightning.callbacks import LearningRateMonitor
    from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

    from threestudio_redream.runtime.checkpoint import SafeCheckpointIO
    from threestudio_redream.runtime.config import config_to_primitive
    from threestudio_redream.runtime.progress import StepProgress
    from threestudio_redream.runtime.rng import RngGuard
    from threestudio_redream.runtime.trial import ConfigSnapshot, TrialCheckpoint

    options = {"enable_model_summary": False, **config_to_primitive(cfg.trainer)}
    callbacks: list[Any] = [StepProgress()] if options.get("enable_progress_bar", True) else []
    loggers: list[Any] = []
    if training:
        os.makedirs(os.path.join(cfg.trial_dir, "tb_logs"), exist_ok=True)
        callbacks += [
            RngGuard(),
            LearningRateMonitor(logging_interval="step"),
            ConfigSnapshot(args.config, cfg, os.path.join(cfg.trial_dir, "configs")),
            TrialCheckpoint(dirpath=os.path.join(cfg.trial_dir, "ckpts"), **config_to_primitive(cfg.checkpoint)),
        ]
        loggers = [
            TensorBoardLogger(cfg.trial_dir, name="tb_logs"),
            CSVLogger(cfg.trial_dir, name="csv_logs"),
            *system.get_loggers(),
        ]
    return Trainer(
        callbacks=callbacks,
        logger=loggers or False,
        inference_mode=False,
        accelerator="gpu" if accelerator == "cuda" else accelerator,
        devices=1,
        plugins=[SafeCheckpointIO()],
        **options,
    )


def _select_device(gpu: str) -> str:
    """Choose the accelerator, restricting CUDA to the asked index before torch sees the others.

    ``CUDA_VISIBLE_DEVICES`` of the caller, as a cluster sets it, is left as it is: the run takes the first it names.
    """
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    index, preset = gpu.strip(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if preset and index.isdigit() and index != "0":
        log.warning("--gpu %s is overruled by CUDA_VISIBLE_DEVICES=%s: the first of these is used", index, preset)
        gpu = "0"
    elif not preset and index.isdigit():
        os.environ["CUDA_VISIBLE_DEVICES"] = index
    from threestudio_redream.runtime.device import choose_accelerator

    return choose_accelerator(gpu)


def _check_types() -> None:
    from threestudio_redream.errors import MissingExtraError

    try:
        from jaxtyping import install_import_hook

        install_import_hook("threestudio_redream", "typeguard.typechecked")
    except ImportError as cause:
        raise MissingExtraError("typeguard", "dev", "The --typecheck flag", cause) from cause


class _Noise(logging.Filter):
    """Drops advertisements and device lists; the launcher says itself what it runs on."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(("GPU available", "TPU available", "HPU available", "💡"))


def _set_up_logging(verbose: bool) -> None:
    import warnings

    import pytorch_lightning  # noqa: F401  (its import adds a handler, which is replaced here)
    from rich.console import Console
    from rich.logging import RichHandler

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    handler = RichHandler(console=Console(stderr=True), show_path=False, show_time=False, markup=False)
    handler.addFilter(_Noise())
    for name in ("pytorch_lightning", "threestudio_redream"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    if not verbose:  # advice of Lightning that does not apply here
        for text in (
            ".*does not have many workers.*",
            ".*IterableDataset.*",
            ".*Checkpoint directory.*is not empty.*",
            ".*predict returned None.*",
            ".*isinstance.treespec.*",
        ):
            warnings.filterwarnings("ignore", text)


if __name__ == "__main__":
    raise SystemExit(main())
