import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from toy import ToyGeometry, ToySystem

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime import registry
from threestudio_redream.runtime.checkpoint import newest_checkpoint, read_checkpoint
from threestudio_redream.runtime.device import choose_accelerator, get_device, get_rank, set_device
from threestudio_redream.runtime.interrupt import graceful_interrupt
from threestudio_redream.runtime.launch import _select_device, build_parser, main

YAML = """
name: toy
tag: t
use_timestamp: false
seed: 3
data_type: random-camera-datamodule
data: {height: 4, width: 4, batch_size: 2, eval_height: 8, eval_width: 8, n_val_views: 2, n_test_views: 3}
system_type: toy-system
system:
  optimizer:
    name: AdamW
    args: {betas: [0.9, 0.99]}
    params: {geometry.layer: {lr: 0.01}, geometry.head: {lr: 0.001}}
  scheduler: {name: ExponentialLR, interval: step, args: {gamma: 0.99}}
trainer:
  {max_steps: 12, log_every_n_steps: 1, num_sanity_val_steps: 0, val_check_interval: 3, check_val_every_n_epoch: null}
checkpoint: {every_n_train_steps: 4, monitor: step, mode: max, save_top_k: 2, save_last: link}
"""


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry._classes, "toy-system", ToySystem)
    monkeypatch.setattr(registry, "_failed_extensions", {})
    monkeypatch.setenv("COLUMNS", "400")
    (tmp_path / "toy.yaml").write_text(YAML)
    yield tmp_path
    set_device(None)


def _launch(*arguments):
    return main(["--config", "toy.yaml", "--gpu", "cpu", *arguments])


def _weights(trial):
    return read_checkpoint(newest_checkpoint(Path(trial) / "ckpts"))


def test_a_run_leaves_the_documented_trial_folder(workspace):
    assert _launch() == 0
    trial = workspace / "outputs/toy/t"
    assert sorted(p.name for p in (trial / "ckpts").iterdir()) == [
        "epoch=0-step=12.safetensors",
        "epoch=0-step=8.safetensors",
        "last.safetensors",
    ]
    for name in (
        "cmd.txt",
        "configs/parsed.yaml",
        "configs/raw.yaml",
        "code/environment.json",
        "csv_logs/version_0/metrics.csv",
    ):
        assert (trial / name).is_file(), name
    assert list((trial / "tb_logs/version_0").glob("events*"))
    assert (trial / "save/turn.mp4").is_file()
    assert len(list((trial / "save/it12-test").glob("*.png"))) == 3
    checkpoint = read_checkpoint(trial / "ckpts/last.safetensors")
    assert checkpoint["global_step"] == 12
    assert "redream_rng" in checkpoint


def test_resume_is_bit_exact(workspace):
    assert _launch("tag=whole") == 0
    assert _launch("tag=parts", "trainer.max_steps=7") == 0
    assert newest_checkpoint("outputs/toy/parts/ckpts").stem == "epoch=0-step=7"
    # a new process would start from other random states
    torch.manual_seed(999)
    assert (
        main(
            ["--config", "outputs/toy/parts/configs/parsed.yaml", "--gpu", "cpu", "resume=last", "trainer.max_steps=12"]
        )
        == 0
    )
    whole, parts = _weights("outputs/toy/whole"), _weights("outputs/toy/parts")
    assert whole["global_step"] == parts["global_step"] == 12
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, parts["state_dict"][key]), key
    first, second = whole["optimizer_states"][0]["state"], parts["optimizer_states"][0]["state"]
    for index in first:
        for key in first[index]:
            assert torch.equal(first[index][key], second[index][key])
    assert torch.equal(whole["redream_rng"]["torch"], parts["redream_rng"]["torch"])
    # the file that a resumed run leaves does not lead back to where that one began
    assert OmegaConf.load("outputs/toy/parts/configs/parsed.yaml").resume is None


def test_test_validate_and_export_use_the_checkpoints_clock(workspace):
    assert _launch("trainer.max_steps=4") == 0
    parsed = "outputs/toy/t/configs/parsed.yaml"
    for file in Path("outputs/toy/t/save").rglob("*.*"):
        file.unlink()
    assert main(["--config", parsed, "--gpu", "cpu", "--test", "resume=last"]) == 0
    assert len(list(Path("outputs/toy/t/save/it4-test").glob("*.png"))) == 3
    assert main(["--config", parsed, "--gpu", "cpu", "--validate", "resume=outputs/toy/t"]) == 0
    assert main(["--config", parsed, "--gpu", "cpu", "--export", "resume=outputs/toy/t/ckpts/last.ckpt"]) == 0


@pytest.mark.parametrize("stage", ["--test", "--validate", "--export"])
def test_last_of_a_trial_without_checkpoints_is_refused(workspace, stage, capsys):
    """A shipped configuration names a new trial: its last checkpoint is none, and untrained weights help nobody."""
    assert _launch("tag=fresh", "resume=last", stage) == 2
    assert "This trial has no checkpoint" in capsys.readouterr().err


def test_a_new_trial_has_nothing_to_resume(workspace, capsys):
    """Else who repeats the first command with resume=last trains from the start without knowing."""
    assert _launch("use_timestamp=true", "resume=last") == 2
    assert "There is nothing to resume" in capsys.readouterr().err
    assert not Path("outputs").exists()
    assert _launch("resume=last") == 0  # a folder with a name of its own begins like that, in a sweep
    assert "No checkpoint in outputs/toy/t: starting at step 0" in capsys.readouterr().err


def test_hook_order(workspace):
    seen = {}

    class Probe(ToySystem):
        def on_fit_end(self):
            seen["order"], seen["calls"] = list(self.order), list(self.geometry.calls)

    registry._classes["toy-system"] = Probe
    assert _launch("trainer.max_steps=4") == 0
    assert seen["order"][:5] == [
        "post_configure",
        "preprocess:train",
        "update_step:0",
        "training_step:0",
        "update_step_end:1",
    ]
    first_validation = seen["order"].index("preprocess:validation")
    assert seen["order"][first_validation : first_validation + 4] == [
        "preprocess:validation",
        "update_step:3",
        "validation_step:3",
        "update_step_end:3",
    ]
    assert seen["calls"][:4] == [("start", 0), ("end", 1), ("start", 1), ("end", 2)]


def test_parts_follow_train_and_eval_mode_after_validation(workspace):
    modes = []

    class Probe(ToySystem):
        def training_step(self, batch, batch_idx):
            modes.append(self.geometry.training and self.geometry.randomized)
            return super().training_step(batch, batch_idx)

    class Randomized(ToyGeometry):
        randomized = True

        def train(self, mode=True):
            self.randomized = mode
            return super().train(mode)

        def eval(self):
            self.randomized = False
            return super().eval()

    class System(Probe):
        def configure(self):
            super().configure()
            self.geometry = Randomized({})

    registry._classes["toy-system"] = System
    assert _launch("trainer.max_steps=7") == 0
    assert modes == [True] * 7


def test_one_interrupt_ends_training_and_goes_on(workspace):
    class Probe(ToySystem):
        def training_step(self, batch, batch_idx):
            if self.global_step == 5:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            return super().training_step(batch, batch_idx)

    registry._classes["toy-system"] = Probe
    before = signal.getsignal(signal.SIGINT)
    assert _launch("trainer.max_steps=1000") == 0
    assert newest_checkpoint("outputs/toy/t/ckpts").stem == "epoch=0-step=6"
    assert Path("outputs/toy/t/save/it6-test").is_dir()
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_before_the_first_step_quits(workspace):
    class Probe(ToySystem):
        def on_fit_start(self):
            super().on_fit_start()
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            raise AssertionError("still here")

    registry._classes["toy-system"] = Probe
    assert _launch("trainer.max_steps=1000") == 130
    assert not list(Path("outputs/toy/t/save").glob("it*"))


def test_second_interrupt_quits(workspace):
    class Probe(ToySystem):
        def training_step(self, batch, batch_idx):
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            return super().training_step(batch, batch_idx)

    registry._classes["toy-system"] = Probe
    assert _launch("trainer.max_steps=1000") == 130
    assert not Path("outputs/toy/t/save/it1-test").exists()


def test_interrupts_in_other_threads_are_left_alone():
    errors = []

    def body():
        try:
            with graceful_interrupt(object()):
                pass
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert errors == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["system_type=toy-sistem"], "toy-system"),
        (["system.optimizer.params={geometry.absent: {lr: 1}}"], "geometry.absent"),
        (["system.optimizer.name=Adamm"], "Adamm"),
        (["system.scheduler.name=Nope"], "Nope"),
        (["resume=absent.ckpt"], "does not exist"),
        (["data.batch_size=[1,2]"], "milestone"),
        (["data.light_sample_strategy=sun"], "sun"),
        (["--gpu", "tpu"], "tpu"),
    ],
)
def test_mistakes_end_with_status_2_and_a_sentence(workspace, capsys, arguments, message):
    arguments = [*arguments[2:]] if arguments[0] == "--gpu" else arguments
    code = main(["--config", "toy.yaml", "--gpu", "tpu"]) if message == "tpu" else _launch(*arguments)
    assert code == 2
    text = capsys.readouterr().err
    assert message in text
    assert "Traceback" not in text


def test_traceback_flag_raises(workspace):
    with pytest.raises(ConfigError):
        _launch("--traceback", "nonsense_key=1")


def test_broken_extension_is_named_in_the_error(workspace, capsys):
    folder = workspace / "custom" / "threestudio-broken"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("import package_that_is_absent\n")
    assert _launch("system_type=ext-system") == 2
    last_line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "RegistryError" in last_line
    assert "package_that_is_absent" in last_line


def test_train_is_the_default_and_stages_exclude_each_other(capsys):
    args, extra = build_parser().parse_known_args(["--config", "a.yaml", "seed=1"])
    assert not any((args.train, args.validate, args.test, args.export))
    assert extra == ["seed=1"]
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--config", "a", "--train", "--test"])


def test_devices(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert choose_accelerator("cpu") == "cpu"
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        assert choose_accelerator("0") == choose_accelerator("auto") == "cpu"
        set_device(None)
        assert get_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_accelerator("1") == "cuda"
    monkeypatch.setenv("RANK", "3")
    assert get_rank() == 3
    assert get_device() == torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_accelerator("0") == choose_accelerator("mps") == "mps"
    with pytest.raises(ConfigError, match=r"no such CUDA device.*'7'"):
        choose_accelerator("7")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"no MPS device"):
        choose_accelerator("mps")
    with pytest.raises(ConfigError, match="tpu"):
        choose_accelerator("tpu")
    with pytest.raises(ConfigError, match=r"A run uses one device.*0,1"):
        choose_accelerator("0,1")


def test_a_cluster_chooses_the_gpu(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert _select_device("0") == "cuda"
    assert not caplog.records
    assert _select_device("1") == "cuda"
    assert "overruled by CUDA_VISIBLE_DEVICES=3" in caplog.text
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert _select_device("2") == "cuda"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"


def test_entry_script_is_thin():
    source = Path(__file__).resolve().parents[2] / "launch.py"
    assert "threestudio_redream.runtime.launch" in source.read_text()
    assert sys.version_info >= (3, 10)
