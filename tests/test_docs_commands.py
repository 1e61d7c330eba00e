"""Every command that the documentation shows exists, with its flags and keys; the cheap ones are run.

Commands are the lines of fenced blocks and the code spans that start with ``redream``, ``python`` or ``make``.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from omegaconf import OmegaConf

from threestudio_redream import cli
from threestudio_redream.adaptation.view_tokens import VIEWS
from threestudio_redream.evaluation.bench.suites import METHODS
from threestudio_redream.runtime import find
from threestudio_redream.runtime.config import load_config, parse_structured
from threestudio_redream.runtime.launch import build_parser
from tools import docs_reference

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "reference"),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "retrieval_index/README.md", "tools/mini/README.md")),
]

#: What stands for something of the reader's, and what stands for it here.
PLACEHOLDERS = {
    "outputs/redream/<trial>/configs/parsed.yaml": "custom_configs/redream.yaml timestamp=@then",
    "outputs/fit-asset/<trial>/configs/parsed.yaml": "custom_configs/fit-asset.yaml timestamp=@then",
    "custom/threestudio-redream/custom_configs/": "custom_configs/",
    "TRIAL/configs/parsed.yaml": "custom_configs/redream.yaml timestamp=@then",
    "outputs/redream/<trial>": "outputs/redream/a_blue_robot",
    "benchmarks/<name>.py": "benchmarks/hashgrid.py",
    "custom/threestudio-clip/configs/with-redream.yaml": "custom_configs/mixing/with-sds.yaml",  # its test runs it
    "pebble.yaml": "custom_configs/baselines/dreamfusion.yaml",  # as does that of docs/extensions.md
    "$HOME": "home",
    "~/": "home/",
}
#: What ``...`` leaves out of a command with a configuration of full size, which has no prompt and no index of its own.
LEFT_OUT = ("system.prompt_processor.prompt=a red robot", "system.retrieval.index=home/meshes.index")
#: Beginnings of commands that are not this project's.
FOREIGN = ("python3 -m venv", "python -m pip", "python -m mkdocs", "python -m pytest")

pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="needs a whole clone, not a source package")


def commands_of(text: str) -> Iterator[str]:
    """Commands as they stand in a page, continued lines joined, without comments."""
    fence = re.compile(r"(?ms)^[ ]*```(\w*)\n(.*?)^[ ]*```")
    for language, block in fence.findall(text):
        if language in ("", "sh", "bash", "shell", "console"):
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                yield line.strip()
    for span in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", fence.sub("", text)):
        yield span.strip()


def collected() -> list[tuple[str, str]]:
    found: dict[tuple[str, str], None] = {}
    for page in PAGES:
        for command in commands_of(page.read_text(encoding="utf-8")):
            plain = command.removeprefix("$ ").replace(".venv/bin/", "")
            for name, value in PLACEHOLDERS.items():
                plain = plain.replace(name, value)
            if plain.startswith(FOREIGN) or "VERB" in plain:
                continue
            if plain.startswith("launch.py "):
                plain = f"python {plain}"
            if re.match(r"(redream|make|python) \S", plain):
                found[page.relative_to(ROOT).as_posix(), plain] = None
    return list(found)


COMMANDS = collected()


def words_of(command: str) -> list[str]:
    words = shlex.split(command, comments=True)
    assert "<" not in "".join(words), f"a placeholder that is not in the table: {command}"
    left_out = LEFT_OUT if "..." in words and "launch.py" in words else ()
    return [*(word for word in words if word != "..."), *left_out]


# --- redream ----------------------------------------------------------------------------------------


def check_redream(words: list[str]) -> None:
    command: Any = typer.main.get_command(cli.app)
    name = "redream"
    while words and getattr(command, "commands", None):
        verb = words.pop(0)
        assert verb in command.commands, f"there is no verb '{verb}' of {name}"
        command, name = command.commands[verb], f"{name} {verb}"
    if words:  # alone, a verb is only named
        command.make_context(name, words)


# --- launch.py --------------------------------------------------------------------------------------


def check_launch(words: list[str], folder: Path) -> None:
    if not words:  # alone, it is only named
        return
    args, overrides = build_parser().parse_known_args(words)
    overrides = [word for word in overrides if word != "key=value"]
    configs = [ROOT / name for name in args.config if name != "FILE"]
    if configs:
        check_keys(load_config(*configs, cli_args=overrides, exp_root_dir=str(folder)))


def check_keys(cfg: Any) -> None:
    """By the project's own checks: the configuration of every class and block that it names."""
    from pytorch_lightning import Trainer
    from pytorch_lightning.callbacks import ModelCheckpoint

    for block, owner in ((cfg.trainer, Trainer), (cfg.checkpoint, ModelCheckpoint)):
        unknown = set(block) - set(inspect.signature(owner).parameters)
        assert not unknown, f"{owner.__name__} has no {unknown}"
    parse_structured(docs_reference.config_of(find(cfg.data_type)), cfg.data)
    system = parse_structured(find(cfg.system_type).Config, cfg.system)
    for part in ("geometry", "material", "background", "renderer", "guidance", "prompt_processor", "exporter"):
        kind = system.get(f"{part}_type")
        if kind:
            parse_structured(docs_reference.config_of(find(kind)), system[part])
    for entry in system.get("guidances", []):
        own = {key: value for key, value in entry.items() if key not in ("type", "weight", "name")}
        parse_structured(find(entry["type"]).Config, own)
    for where, target in docs_reference.BLOCKS.items():
        block = OmegaConf.select(OmegaConf.create({"system": system}), where)
        if isinstance(block, Mapping) or OmegaConf.is_dict(block):
            values = {key: value for key, value in block.items() if key != "enabled"}
            parse_structured(docs_reference.block_class(target), values)


# --- scripts, modules, make -------------------------------------------------------------------------


def check_script(path: Path, words: list[str]) -> None:
    """The file exists, and it names every flag of the command."""
    assert path.is_file(), f"there is no {path.relative_to(ROOT)}"
    beside = [path, *path.parent.glob("_common.py"), *(ROOT / "tools/mini").glob("results.py")]
    texts = {
        node.value
        for file in beside
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not [word for word in words if word.startswith("-") and word.partition("=")[0] not in texts]


def check_module(name: str, words: list[str]) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"there is no module {name}"
    assert spec.origin is not None
    check_script(Path(spec.origin), words)


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"(?m)^([a-z-]+):", makefile)
    for word in words:
        name, given, _ = word.partition("=")
        if given:
            assert re.search(rf"\$\({name}\)|\({name}\),", makefile), f"the Makefile has no use for {name}"
        else:
            assert name in targets, f"there is no target '{name}'"


# --- the tests --------------------------------------------------------------------------------------


def test_there_are_commands_of_every_kind() -> None:
    starts = [command.split()[0:2] for _, command in COMMANDS]
    assert len(COMMANDS) > 80
    assert {"launch.py", "-m"} <= {second for first, second in starts if first == "python"}
    assert {"search", "index", "bench", "eval"} <= {second for first, second in starts if first == "redream"}
    assert {"run", "test", "docs"} <= {second for first, second in starts if first == "make"}


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_the_command_exists_with_its_flags_and_keys(page: str, command: str, tmp_path: Path) -> None:
    words = words_of(command)
    if words[0] == "redream":
        check_redream(words[1:])
    elif words[0] == "make":
        check_make(words[1:])
    elif words[1] == "launch.py":
        check_launch(words[2:], tmp_path)
    elif words[1] == "-m":
        check_module(words[2], words[3:])
    else:
        check_script(ROOT / words[1], words[2:])


@pytest.mark.parametrize(
    "command",
    [
        "redream serch robot --index x",
        "redream search robot --indx x",
        "make rnu",
        "make run PROMT=x",
        "python launch.py --config custom_configs/no-such.yaml",
        "python launch.py --config custom_configs/redream.yaml system.geometrie.radius=1",
        "python launch.py --config custom_configs/redream.yaml system.geometry.radiu=1",
        "python launch.py --config custom_configs/redream.yaml system.adaptation.stepz=1",
        "python launch.py --config custom_configs/redream.yaml trainer.max_stepz=1",
        "python benchmarks/no_such.py",
        "python benchmarks/fit_step.py --stepz 1",
        "python -m tools.no_such",
        "redream eval <something>",
    ],
)
def test_a_wrong_command_is_found(command: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"there is no|no use for|does not exist|has no|No such|not in|assert not"):
        test_the_command_exists_with_its_flags_and_keys("a page", command, tmp_path)


def test_the_methods_of_the_pages_are_those_of_the_bench() -> None:
    table = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8").partition("| method | what it is |")[2]
    rows = re.findall(r"(?m)^\| ((?:`[\w-]+`(?:, )?)+) \|", table)
    assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row)} == set(METHODS)
    page = (ROOT / "docs" / "adaptation.md").read_text(encoding="utf-8")
    assert all(f"<{view}>" in page for view in VIEWS)


# --- run --------------------------------------------------------------------------------------------

#: Commands that are run as they stand in the pages, in this order, in a folder with two small libraries.
RUN = [
    "redream doctor --json",
    'redream search "a red robot" --index retrieval_index/mini',
    'redream search "a red robot" --index retrieval_index/mini --sheet hits.png',
    'redream search "a red robot" --index retrieval_index/mini --json --sheet hits.png',
    "redream render chair.glb --out views",
    "redream index build home/meshes --out home/meshes.index",
    "redream index add home/more-meshes --index home/meshes.index",
    "redream index merge home/meshes.index home/colleagues.index",
    "redream index verify home/meshes.index",
    'redream search "a wooden chair" --index home/meshes.index -n 5',
    "redream bench --suite mini --methods main --plan",
    "redream bench --suite mini --methods redream,no-delta --prompts 4 --seeds 0,1 --plan",
]
#: Added where a page's command would take long or write into the clone.
SMALLER = {"redream render chair.glb --out views": ["--size", "64", "--views", "2"]}


def redream(words: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a clone, with a library of meshes, more meshes, and a colleague's index."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("retrieval_index", "custom_configs", "launch.py"):
        (folder / name).symlink_to(ROOT / name)
    shipped = ROOT / "retrieval_index" / "mini" / "assets"
    for library, pattern in (("meshes", "chair-*"), ("more-meshes", "cat-*"), ("colleagues", "mug-*")):
        (folder / "home" / library).mkdir(parents=True)
        shutil.copy(next(shipped.glob(pattern)), folder / "home" / library)
    shutil.copy(next(shipped.glob("chair-*")), folder / "chair.glb")
    home = folder / "home"
    assert redream(["index", "build", str(home / "colleagues"), "--out", str(home / "colleagues.index")]) == 0
    return folder


@pytest.mark.parametrize("command", RUN)
def test_the_command_does_its_job(
    command: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = {shlex.join(words_of(listed)) for _, listed in COMMANDS}
    assert shlex.join(words_of(command)) in shown, "no page has this command any more"
    monkeypatch.chdir(workplace)
    status = redream([*words_of(command)[1:], *SMALLER.get(command, [])])
    printed = capfd.readouterr()
    assert status == 0, printed.err
    assert printed.out or printed.err


def test_the_quickstart_shows_what_the_search_prints(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    assert redream(["search", "a red robot", "--index", "retrieval_index/mini"]) == 0
    printed = capfd.readouterr().out
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    names = re.findall(r"(?m)^\d\. (.+)$", page)
    assert names == re.findall(r"(?m)^\d\. (.+)$", printed)


#: Overrides that a laptop can bear, behind the words of a page.
QUICK = [
    "use_timestamp=false",
    "trainer.max_steps=2",
    "checkpoint.every_n_train_steps=1",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=2",
    "trainer.limit_predict_batches=0",  # two steps leave nothing to export
]
QUICK_REDREAM = ["adaptation.steps=2", "adaptation.probe_every=0", "references.views_per_asset=8"]


def launched() -> list[str]:
    """Training commands of the pages at mini scale, each once. Those that go on from a run are left to their own tests,
    as are the full-size ones."""
    found: dict[str, None] = {}
    for _, command in COMMANDS:
        words = words_of(command)
        on = any(word.startswith(("resume=", "system.weights=")) or word in ("--export", "--train") for word in words)
        if words[1:2] == ["launch.py"] and len(words) > 2 and "sd21" not in command and not on:
            found[shlex.join(words[2:])] = None
    return list(found)


def test_there_are_commands_to_launch() -> None:
    assert len(launched()) >= 8
    assert any("ablations" in command for command in launched())
    assert any("mixing" in command for command in launched())


@pytest.mark.parametrize("command", launched())
def test_the_training_starts_and_ends(
    command: str, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threestudio_redream.runtime.device import set_device
    from threestudio_redream.runtime.launch import main

    for name in ("retrieval_index", "custom_configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("robot.glb", "duck.obj"):  # the reader's own
        write_mesh(next((ROOT / "retrieval_index" / "mini" / "assets").glob("robot-*")), tmp_path / name)
    write_style(tmp_path / "style.safetensors")
    monkeypatch.chdir(tmp_path)
    short = [f"system.{word}" for word in QUICK_REDREAM] if "custom_configs/redream.yaml" in command else []
    try:
        assert main([*shlex.split(command), "--gpu", "cpu", *QUICK, *short]) == 0
    finally:
        set_device(None)
    (trial,) = (path.parent for path in tmp_path.glob("outputs/*/*/ckpts"))
    assert list(trial.glob("save/it2-test/*.png"))


def write_mesh(source: Path, target: Path) -> None:
    import trimesh

    trimesh.load(source, force="mesh").export(target)


def write_style(path: Path) -> None:
    """A LoRA for the mini UNet in diffusers' format, with weights that do nothing."""
    import torch
    from safetensors.torch import save_file

    from threestudio_redream.guidance.latent_diffusion import LatentDiffusion

    unet = LatentDiffusion.load("mini").unet
    name, layer = next((name, layer) for name, layer in unet.named_modules() if name.endswith("attn2.to_q"))
    tensors = {
        f"unet.{name}.lora_A.weight": torch.zeros(4, layer.in_features),
        f"unet.{name}.lora_B.weight": torch.zeros(layer.out_features, 4),
    }
    save_file(tensors, path)
