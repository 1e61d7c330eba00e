from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.config import config_to_primitive, dump_config, load_config, parse_structured
from threestudio_redream.runtime.schedule import C, largest_value


@dataclass
class Sample:
    width: int = 4
    rate: float = 0.5
    name: str = "x"
    nested: dict = field(default_factory=dict)


def _yaml(tmp_path, text, name="a.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_merge_order_and_trial_folder(tmp_path):
    first = _yaml(
        tmp_path,
        f"name: one\ntag: t\nuse_timestamp: false\nexp_root_dir: {tmp_path}/out\nseed: 1\nsystem: {{a: 1, b: 1}}\n",
    )
    second = _yaml(tmp_path, "seed: 2\nsystem: {b: 2, c: '${system.b}'}\n", "b.yaml")
    cfg = load_config(first, second, cli_args=["system.b=3", "name=cli"], n_gpus=1)
    assert (cfg.seed, cfg.name, cfg.system.a, cfg.system.b, cfg.system.c) == (2, "cli", 1, 3, 3)
    assert cfg.trial_dir == f"{tmp_path}/out/cli/t"
    assert (tmp_path / "out/cli/t").is_dir()
    assert load_config(first, name="kwargs", cli_args=["name=cli"]).name == "kwargs"


def test_timestamp_is_kept_on_resume_and_off_for_several_gpus(tmp_path):
    text = f"tag: t\nexp_root_dir: {tmp_path}\n"
    cfg = load_config(text, from_string=True)
    assert cfg.trial_name.startswith("t@2")
    dump_config(tmp_path / "parsed.yaml", cfg)
    assert load_config(tmp_path / "parsed.yaml").trial_dir == cfg.trial_dir
    assert load_config(text, from_string=True, n_gpus=2).trial_name == "t"


@pytest.mark.parametrize(
    ("text", "cli", "message"),
    [
        ("tag: ''\nuse_timestamp: false\n", [], "no name"),
        ("unknown_key: 1\n", [], "unknown_key"),
        ("nmae: x\n", [], "Did you mean name"),
        ("tag: ${system.prompt}\nsystem:\n  prompt: ???\n", [], "Missing mandatory value"),
        ("tag: ${nothing.here}\n", [], "resolved"),
        ("seed: abc\n", [], "seed"),
        ("tag: a\n", ["+seed=1"], "key=value"),
        ("tag: a\n", ["--seed"], "key=value"),
        ("- 1\n- 2\n", [], "not a mapping"),
    ],
)
def test_bad_configurations_are_named(tmp_path, text, cli, message):
    with pytest.raises(ConfigError, match=message):
        load_config(_yaml(tmp_path, text), cli_args=[*cli, f"exp_root_dir={tmp_path}"])


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="not valid yaml"):
        load_config(_yaml(tmp_path, "a: [1\n"))


def test_strict_structured_configs():
    cfg = parse_structured(Sample, {"width": 8})
    assert (cfg.width, cfg.rate) == (8, 0.5)
    cfg.width = 9
    with pytest.raises(Exception, match="absent"):
        cfg.absent = 1
    with pytest.raises(TypeError, match="Did you mean width"):
        parse_structured(Sample, {"widht": 8})
    with pytest.raises(ConfigError, match="needs a mapping") as caught:
        parse_structured(Sample, "text")
    assert "'text'" in str(caught.value)
    with pytest.raises(ConfigError, match="width"):
        parse_structured(Sample, {"width": "wide"})
    assert list(parse_structured(Sample, {"rate": [0, 1.0, 0.0, 10]}).rate) == [0, 1.0, 0.0, 10]
    assert parse_structured(Sample, None).name == "x"


def test_resolvers():
    cfg = OmegaConf.create(
        {
            "decay": "${calc_exp_lr_decay_rate:0.1,100}",
            "arith": ["${add:1,2}", "${sub:5,2}", "${mul:2,3}", "${div:1,2}", "${idiv:7,2}"],
            "base": "${basename:/a/b.glb}",
            "flat": "${rmspace:a b,_}",
            "pair": "${tuple2:3}",
            "flags": ["${gt0:1}", "${not:true}", "${cmaxgt0:${s}}", "${cmaxgt0orcmaxgt0:0,${s}}"],
            "s": [0, 0.0, 1.0, 5],
        }
    )
    OmegaConf.resolve(cfg)
    assert cfg.decay == pytest.approx(0.1**0.01)
    assert list(cfg.arith) == [3, 3, 6, 0.5, 3]
    assert (cfg.base, cfg.flat, list(cfg.pair)) == ("b.glb", "a_b", [3.0, 3.0])
    assert list(cfg.flags) == [True, False, True, True]
    assert config_to_primitive(cfg.pair) == [3.0, 3.0]
    assert config_to_primitive(5) == 5


@pytest.mark.parametrize(
    ("value", "epoch", "step", "expected"),
    [
        (3, 0, 99, 3),
        (0.25, 0, 0, 0.25),
        ([0, 1.0, 0.0, 100], 0, 25, 0.75),
        ([1.0, 0.0, 100], 0, 50, 0.5),
        ([10, 1.0, 3.0, 20], 0, 0, 1.0),
        ([10, 1.0, 3.0, 20], 0, 15, 2.0),
        ([10, 1.0, 3.0, 20], 0, 99, 3.0),
        ([0, 0.0, 1.0, 10.0], 5, 1000, 0.5),
        ([0, 1.0, 2.0, 10, 4.0, 20], 0, 5, 1.5),
        ([0, 1.0, 2.0, 10, 4.0, 20], 0, 15, 3.0),
        ([0, 1.0, 2.0, 10, 4.0, 20, 0.0, 30], 0, 25, 2.0),
        ([5, 1.0, 9.0, 5], 0, 5, 9.0),
        ([5, 1.0, 9.0, 5], 0, 4, 1.0),
        (OmegaConf.create([0, 1.0, 0.0, 10]), 0, 5, 0.5),
    ],
)
def test_schedules(value, epoch, step, expected):
    assert C(value, epoch, step) == pytest.approx(expected)


@pytest.mark.parametrize("value", ["1", None, True, [1, 2], [0, 1, 2, 3, 4], [0, "a", 1, 2], [10, 1.0, 0.0, 5], {}])
def test_malformed_schedules_show_the_value(value):
    with pytest.raises(ConfigError, match=r"(?s)schedule.*got"):
        C(value, 0, 0)


def test_largest_value():
    assert largest_value(2) == 2
    assert largest_value([0, 1.0, 0.5, 10]) == 1.0
    assert largest_value([0, 0.0, 5.0, 10, 1.0, 20]) == 5.0


SYSTEM = "system: {guidance: {pretrained_model_name_or_path: a}, prompt_processor: {prompt: x}}"


def test_one_word_names_the_model_of_every_component(tmp_path):
    base = f"{{name: n, tag: t, use_timestamp: false, exp_root_dir: {tmp_path}}}"
    for yamls, cli in (((base, SYSTEM), ["model=b/c"]), ((base, SYSTEM, "model: b/c"), [])):
        cfg = load_config(*yamls, cli_args=cli, from_string=True)
        assert cfg.system["guidance"]["pretrained_model_name_or_path"] == "b/c"
        assert cfg.system["prompt_processor"] == {"prompt": "x", "pretrained_model_name_or_path": "b/c"}
    cfg = load_config(base, SYSTEM, from_string=True)
    assert cfg.system["guidance"]["pretrained_model_name_or_path"] == "a"
    with pytest.raises(ConfigError, match="no part that a model could be for") as error:
        load_config(base, "system: {loss: {}}", cli_args=["model=b/c"], from_string=True)
    assert error.value.received == "b/c"


def test_items_of_lists_are_set_by_number():
    text = "system: {guidances: [{type: a, weight: 1}, {type: b}], rate: [0, 1.0, 2.0, 3]}"
    given = [
        "system.guidances.1.weight=[0,0.5,1.0,9]",
        "system.guidances.0.type=c",
        "system.rate.2=7.5",
        "system.x.0=4",
    ]
    system = load_config(text, cli_args=given, from_string=True).system
    assert system.guidances == [{"type": "c", "weight": 1}, {"type": "b", "weight": [0, 0.5, 1.0, 9]}]
    assert system.rate == [0, 1.0, 7.5, 3]
    assert system.x == {0: 4} or system.x == {"0": 4}
    with pytest.raises(ConfigError, match=r"does not have.*guidances\.2\.type") as error:
        load_config(text, cli_args=["system.guidances.2.type=d"], from_string=True)
    assert "from 0" in error.value.fix


def test_items_of_lists_are_read_as_other_keys_are():
    text = "system: {guidances: [{type: a, prompt: b}]}"
    given = ["system.guidances.0.prompt=a robot: blue", "system.guidances.0.size=[1, 2]"]
    system = load_config(text, cli_args=given, from_string=True).system
    assert system.guidances == [{"type": "a", "prompt": "a robot: blue", "size": [1, 2]}]
    with pytest.raises(ConfigError, match=r"not valid yaml.*size=\[1.*quotes"):
        load_config(text, cli_args=["system.guidances.0.size=[1"], from_string=True)


PROMPT = "exp_root_dir: %s\ntag: ${rmspace:${system.prompt},_}\nsystem:\n  prompt: ???\n"


@pytest.mark.parametrize(
    "prompt",
    [
        "a robot: blue",
        '"cat" sitting',
        '"a" and "b"',
        "@home robot",
        "[a robot",
        "{robot}",
        "a robot #1",
        "1984",
        "yes",
        "null island, a robot",
        "../../../../escaped",
        "C:\\robots?*",
        "ein Würfel, 藍色機器人",
        "a very long robot " * 40,
        "..",
    ],
)
def test_any_prompt_is_a_prompt(tmp_path, prompt):
    """What people type is no yaml, and the folder that bears its name lies where it should."""
    cfg = load_config(PROMPT % (tmp_path / "out"), from_string=True, cli_args=[f"system.prompt={prompt}"])
    assert cfg.system.prompt == prompt
    folder = Path(cfg.trial_dir)
    assert folder.is_dir()
    assert folder.resolve().parent == (tmp_path / "out" / "default").resolve()
    assert len(folder.name.encode()) < 200


def test_long_prompts_do_not_share_a_folder(tmp_path):
    names = []
    for end in ("red", "blue"):
        words = [f"system.prompt={'long ' * 60}{end}", "use_timestamp=false"]
        names.append(load_config(PROMPT % tmp_path, from_string=True, cli_args=words).trial_name)
    assert names[0] != names[1]


def test_texts_without_quotes_and_other_values_with_yaml(tmp_path):
    words = ["tag=1", "seed=7", "description=a: b", "system.prompt='quoted: one'", "system.negative_prompt=null"]
    cfg = load_config(PROMPT % tmp_path, from_string=True, cli_args=words)
    assert (cfg.tag, cfg.seed, cfg.description) == ("1", 7, "a: b")
    assert cfg.system == {"prompt": "quoted: one", "negative_prompt": None}
    with pytest.raises(ConfigError, match=r"not valid yaml.*system\.x=\[1.*quotes"):
        load_config(PROMPT % tmp_path, from_string=True, cli_args=["system.x=[1"])


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(tmp_path, monkeypatch):
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr("threestudio_redream.runtime.config.datetime", Clock)
    text = f"{{name: n, tag: t, exp_root_dir: {tmp_path}}}"
    trials = [load_config(text, from_string=True, cli_args=[f"seed={seed}"]) for seed in range(3)]
    stamp = "@20260102-030405"
    assert [trial.trial_name for trial in trials] == [f"t{stamp}", f"t{stamp}-2", f"t{stamp}-3"]
    assert trials[2].timestamp == f"{stamp}-3"
    resumed = load_config(text, from_string=True, cli_args=[f"timestamp={stamp}-2"])
    assert resumed.trial_dir == trials[1].trial_dir


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"trial folder cannot be made.*exp_root_dir"):
        load_config(f"{{tag: t, exp_root_dir: {tmp_path / 'file'}}}", from_string=True)
