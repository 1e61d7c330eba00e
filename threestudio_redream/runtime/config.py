"""Experiment configuration: yaml files + command line -> strict dataclasses.

Merge order: yaml files from left to right, the command line (``key=value``), then keyword
arguments; interpolations are resolved last. Unknown keys are errors that name the near ones.
``model=NAME`` is short for the diffusion model of guidance and prompt processor together.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import omegaconf
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from packaging.version import parse as parse_version
from yaml import YAMLError

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.schedule import largest_value

__all__ = ["ExperimentConfig", "config_to_primitive", "dump_config", "load_config", "parse_structured"]

_RESOLVERS: dict[str, Callable[..., Any]] = {
    "calc_exp_lr_decay_rate": lambda factor, n: factor ** (1.0 / n),
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "idiv": lambda a, b: a // b,
    "basename": os.path.basename,
    "rmspace": lambda text, replacement: str(text).replace(" ", replacement),
    "tuple2": lambda s: OmegaConf.create([float(s), float(s)]),  # 2.3 does not resolve a plain list in place
    "gt0": lambda s: s > 0,
    "cmaxgt0": lambda s: largest_value(s) > 0,
    "not": lambda s: not s,
    "cmaxgt0orcmaxgt0": lambda a, b: largest_value(a) > 0 or largest_value(b) > 0,
}

_PROMPTS = ("prompt", "negative_prompt", "prompt_front", "prompt_side", "prompt_back", "prompt_overhead")
_TEXTS = frozenset([*_PROMPTS, "tag", "name", "description", "timestamp", "exp_root_dir", "resume"])
_LONGEST_NAME = 120  # bytes; with timestamp and suffixes below the 255 that file systems allow

MODEL_KEY = "pretrained_model_name_or_path"

# 2.4 renamed the function; 2.3 has an older one by the new name
_old = parse_version(omegaconf.__version__) < parse_version("2.4.0.dev0")
_register_resolver = OmegaConf.register_new_resolver if _old else OmegaConf.register_resolver
for _name, _function in _RESOLVERS.items():
    if not OmegaConf.has_resolver(_name):  # upstream registers the same names
        _register_resolver(_name, _function)


@dataclass
class ExperimentConfig:
    """Top level of every yaml file. The trial folder is ``exp_root_dir/name/tag@timestamp``.

    The trial folder is created at parse time, as in upstream, so that everything the run writes has
    a place.

    Attributes:
        name, tag: of the folder; the tag is often made of the prompt.
        description: a note for people; nothing reads it.
        seed: of cameras, noise and first weights.
        use_timestamp: add the time to the folder's name, so that no run meets an older one. timestamp: set by the
            launcher; a resumed ``parsed.yaml`` carries its own.
        exp_root_dir: where all results go.
        exp_dir, trial_name, trial_dir, n_gpus: set by the launcher.
        resume: go on from a checkpoint: a file, a trial folder, or ``last`` for the newest of this trial.
        data_type, data: registered name of the data module, and its keys.
        system_type, system: registered name of the system, and its keys.
        trainer: arguments of Lightning's ``Trainer``, such as ``max_steps`` and ``val_check_interval``.
        checkpoint: arguments of Lightning's ``ModelCheckpoint``, such as ``every_n_train_steps`` and ``save_top_k``.
    """

    name: str = "default"
    description: str = ""
    tag: str = ""
    seed: int = 0
    use_timestamp: bool = True
    timestamp: str | None = None
    exp_root_dir: str = "outputs"
    exp_dir: str = "outputs/default"
    trial_name: str = "exp"
    trial_dir: str = "outputs/default/exp"
    n_gpus: int = 1
    resume: str | None = None
    data_type: str = ""
    data: dict = field(default_factory=dict)
    system_type: str = ""
    system: dict = field(default_factory=dict)
    trainer: dict = field(default_factory=dict)
    checkpoint: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.tag and not self.use_timestamp:
            raise ConfigError(
                "The run has no name: tag is empty and use_timestamp is off",
                received={"tag": self.tag, "use_timestamp": self.use_timestamp},
                fix="Set tag=..., or use_timestamp=true.",
            )
        self.exp_dir = os.path.join(self.exp_root_dir, self.name)
        # a resumed parsed.yaml carries its own
        fresh = self.timestamp is None and self.use_timestamp and self.n_gpus <= 1
        stamp = datetime.now().strftime("@%Y%m%d-%H%M%S") if fresh else self.timestamp or ""
        if fresh and self.resume == "last":
            raise ConfigError(
                "There is nothing to resume: this configuration begins a new trial",
                received="resume=last",
                fix="Give the configs/parsed.yaml of the trial that should go on, or leave resume out.",
            )
        try:
            while not self._make_trial(stamp, exist_ok=not fresh):  # somebody started one in the same second
                day, second, *number = stamp.split("-")
                stamp = f"{day}-{second}-{int(number[0]) + 1 if number else 2}"
        except OSError as cause:
            raise ConfigError(
                f"The trial folder cannot be made: {cause.strerror}",
                received=self.trial_dir,
                fix="Set exp_root_dir to a folder that you can write to.",
            ) from cause

    def _make_trial(self, stamp: str, exist_ok: bool) -> bool:
        self.timestamp = stamp
        self.trial_name = _folder_name(self.tag) + stamp
        self.trial_dir = os.path.join(self.exp_dir, self.trial_name)
        try:
            os.makedirs(self.trial_dir, exist_ok=exist_ok)
        except FileExistsError:
            if not exist_ok and os.path.isdir(self.trial_dir):
                return False
            raise
        return True


def load_config(*yamls: str | Path, cli_args: Sequence[str] = (), from_string: bool = False, **kwargs: Any) -> Any:
    """Read, merge and resolve a configuration.

    Args:
        yamls: paths, or yaml texts with ``from_string``.
        cli_args: ``key=value`` overrides, dots for nesting, yaml syntax for values. Prompts, names and tags need no
            quotes of yaml: ``prompt=a robot: blue`` is a text.
        kwargs: values that win over everything.

    Returns:
        A structured ``DictConfig`` of :class:`ExperimentConfig`.

    Raises:
        ConfigError: if a file is missing or not yaml, an override is malformed, a value is missing or
            an interpolation fails.
    """
    parts = [OmegaConf.create(str(y)) if from_string else _read_yaml(Path(y)) for y in yamls]
    for part in parts:
        if not isinstance(part, DictConfig):
            raise ConfigError(
                "The configuration is not a mapping", received=part, fix="Start the yaml with key: value."
            )
    for argument in cli_args:
        if "=" not in argument or argument.startswith(("-", "+", "~", "=")):
            raise ConfigError(
                "A command-line override is not of the form key=value",
                received=argument,
                fix="Write for example system.loss.lambda_rgb=1000 (no leading dashes or plus signs).",
            )
    try:
        merged = cast(DictConfig, OmegaConf.merge(*parts))
        items = [argument for argument in cli_args if _is_list_item(merged, argument.split("=", 1)[0])]
        others = [argument for argument in cli_args if argument not in items]
        merged = cast(DictConfig, OmegaConf.merge(merged, *map(_override, others), kwargs))
        for argument in items:
            _set_list_item(merged, argument)
        _spread_model(merged)
        OmegaConf.resolve(merged)
    except OmegaConfBaseException as cause:
        raise ConfigError(
            f"The configuration cannot be resolved: {str(cause).splitlines()[0]}",
            received=[str(y) for y in yamls] if not from_string else "yaml text",
            fix="A ??? stands for a value you must give on the command line.",
        ) from cause
    return parse_structured(ExperimentConfig, merged)


def _override(argument: str) -> DictConfig:
    """``key=value`` as a nested configuration."""
    literal = OmegaConf.create({})
    key = argument.split("=", 1)[0]
    OmegaConf.update(literal, key, _value(argument), force_add=True)
    return literal


def _value(argument: str) -> Any:
    """The value of ``key=value``, read as yaml; texts such as prompts are taken as they stand."""
    key, text = argument.split("=", 1)
    is_text = key.rsplit(".", 1)[-1] in _TEXTS and text != "null"
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    try:
        if not is_text or quoted:
            return cast(dict, OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False))["value"]
    except YAMLError as cause:
        if not is_text:
            raise ConfigError(
                "A command-line value is not valid yaml",
                received=argument,
                fix="""Put it in quotes of its own: key="'value'".""",
            ) from cause
    return text


def _folder_name(tag: str) -> str:
    """A tag, often a prompt, as the name of one folder: no separators, and short enough for every file system."""
    name = "".join("_" if character in '<>:"/\\|?*' or not character.isprintable() else character for character in tag)
    if name.strip(".") == "":
        return "_" * len(name)
    encoded = name.encode("utf-8", errors="replace")
    if len(encoded) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    return f"{encoded[: _LONGEST_NAME - 9].decode('utf-8', errors='ignore')}-{digest}"


def _is_list_item(config: DictConfig, key: str) -> bool:
    """Whether a dotted key goes through a list that the configuration has, as ``system.guidances.0.weight`` does."""
    words = key.split(".")
    found = (OmegaConf.select(config, ".".join(words[:i])) for i, word in enumerate(words) if i and word.isdigit())
    return any(isinstance(node, ListConfig) for node in found)


def _set_list_item(config: DictConfig, argument: str) -> None:
    try:
        OmegaConf.update(config, argument.split("=", 1)[0], _value(argument), merge=True, force_add=True)
    except IndexError as cause:
        raise ConfigError(
            "A command-line override names an item that the list does not have",
            received=argument,
            fix="Items count from 0; give the whole list to add one.",
        ) from cause


def parse_structured(fields: Any, cfg: Mapping[str, Any] | None = None) -> Any:
    """Build the dataclass ``fields`` from ``cfg`` and wrap it as a strict OmegaConf object.

    Unknown keys and wrong scalars are errors; a list in a ``float`` field is accepted, because that is how
    schedules get through. The result is mutable, but refuses new attributes.

    Raises:
        ConfigError: (a TypeError and a ValueError) naming the class, the key and near keys.
    """
    where = getattr(fields, "__qualname__", str(fields))
    if cfg is None:
        cfg = {}
    if not isinstance(cfg, Mapping | DictConfig):
        raise ConfigError(f"{where} needs a mapping of keys to values", received=cfg, fix="Write an indented block.")
    known = [f.name for f in dataclasses.fields(fields)]
    for key in cfg:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=3)
            raise ConfigError(
                f"{where} has no key '{key}'",
                received=cfg[key],
                fix=f"Did you mean {', '.join(near)}?" if near else f"Known keys: {', '.join(known) or 'none'}.",
            )
    try:
        # list nodes pass any scalar field unchecked: that is how schedules get through
        values = {key: OmegaConf.create(value) if isinstance(value, list) else value for key, value in cfg.items()}
        return OmegaConf.structured(fields(**values))
    except OmegaConfBaseException as cause:
        raise ConfigError(
            f"{where}.{getattr(cause, 'full_key', '') or '?'}: {str(cause).splitlines()[0]}",
            fix="Correct the value in the yaml file or on the command line.",
        ) from cause


def config_to_primitive(config: Any, resolve: bool = True) -> Any:
    """Plain dicts and lists of an OmegaConf object; other values pass through."""
    return OmegaConf.to_container(config, resolve=resolve) if isinstance(config, DictConfig | ListConfig) else config


def dump_config(path: str | Path, config: Any) -> None:
    """Write ``config`` as yaml, atomically."""
    from threestudio_redream.runtime.files import atomic_write_text

    atomic_write_text(path, OmegaConf.to_yaml(config))


def _spread_model(merged: DictConfig) -> None:
    """``model: NAME`` at the top, or ``model=NAME``, names the diffusion model of every component."""
    if "model" not in merged:
        return
    name = merged.pop("model")
    places = [
        f"system.{part}.{MODEL_KEY}"
        for part in ("guidance", "prompt_processor")
        if OmegaConf.select(merged, f"system.{part}") is not None
    ]
    if not places:
        raise ConfigError(
            "The configuration has no part that a model could be for",
            received=name,
            fix="model=NAME goes with a system that has guidance and prompt_processor.",
        )
    for place in places:
        OmegaConf.update(merged, place, name)


def _read_yaml(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError("The configuration file does not exist", received=str(path), fix="Check the --config path.")
    try:
        return OmegaConf.load(path)
    except Exception as cause:  # yaml errors have several unrelated bases
        raise ConfigError(f"The file is not valid yaml: {cause}", received=str(path), fix="Mend the yaml.") from cause
