"""A full device ends in advice for the configuration at hand."""

import pytest
import torch
from omegaconf import OmegaConf
from toy import ToySystem

from threestudio_redream.runtime import registry
from threestudio_redream.runtime.device import set_device
from threestudio_redream.runtime.launch import main
from threestudio_redream.runtime.out_of_memory import (
    DeviceMemoryError,
    advice,
    advise_when_out_of_memory,
    is_out_of_memory,
)

FULL = {
    "data": {"width": [64, 512], "height": [64, 512], "batch_size": [1, 1]},
    "system": {
        "renderer": {"num_samples_per_ray": 512},
        "guidance_type": "redream-guidance",
        "guidance": {"weights_dtype": "float32"},
        "prompt_processor": {},
        "adaptation": {"batch_size": 4},
    },
}


def test_every_form_of_the_error_is_known():
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_advice_is_in_order_and_shows_what_to_type():
    lines = advice(OmegaConf.create(FULL))
    wanted = (
        "data.width=[64,256] data.height=[64,256]",
        "custom_configs/memory/24g.yaml",
        "num_samples_per_ray=256",
        "weights_dtype=float16",
        "unet_checkpointing=true",
        "adaptation.batch_size=2",
        "one_call=false",
        "encoder_device=cpu",
        "eval_chunk_size",
        "nvidia-smi",
    )
    assert len(lines) == len(wanted)
    for line, part in zip(lines, wanted):
        assert part in line


def test_what_is_done_already_is_not_advised():
    cfg = OmegaConf.create(FULL)
    cfg.data = {"width": 64, "height": 64, "batch_size": 2}
    cfg.system.renderer.num_samples_per_ray = 64
    cfg.system.guidance = {"weights_dtype": "float16", "one_call": False, "memory": {"unet_checkpointing": True}}
    cfg.system.adaptation.batch_size = 1
    cfg.system.prompt_processor.encoder_device = "cpu"
    lines = advice(cfg)
    assert lines[0] == "smaller training images: data.batch_size=1"
    done = ("checkpointing", "one_call", "float16", "encoder", "ray=")
    assert not any(word in line for line in lines for word in done)
    foreign = advice(OmegaConf.create({"data": {}, "system": {"guidance_type": "other", "guidance": {}}}))
    assert [line.split()[0] for line in foreign] == ["if", "no"]


def test_other_errors_pass_through():
    with pytest.raises(ZeroDivisionError), advise_when_out_of_memory(OmegaConf.create(FULL)):
        _ = 1 // 0
    told = pytest.raises(DeviceMemoryError, match=r"Tried to allocate 2 GiB\. [^\n]*\n  1\. ")
    with told as error, advise_when_out_of_memory(OmegaConf.create(FULL)):
        raise torch.cuda.OutOfMemoryError("Tried to allocate 2 GiB\nmore")
    assert isinstance(error.value.__cause__, torch.cuda.OutOfMemoryError)
    assert "resume=last" in error.value.fix
    assert "computed, not measured" in error.value.fix


def test_the_launcher_prints_it(tmp_path, monkeypatch, capsys):
    class Greedy(ToySystem):
        def training_step(self, batch, batch_idx):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry._classes, "toy-system", Greedy)
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "toy.yaml").write_text(
        "{name: toy, tag: t, use_timestamp: false, data_type: random-camera-datamodule, system_type: toy-system,\n"
        " data: {height: 128, width: 128, batch_size: 1}, checkpoint: {},\n"
        " system: {optimizer: {name: Adam, args: {}, params: {geometry.layer: {lr: 0.1}}}},\n"
        " trainer: {max_steps: 2, num_sanity_val_steps: 0, enable_progress_bar: false}}\n"
    )
    try:
        assert main(["--config", "toy.yaml", "--gpu", "cpu"]) == 2
    finally:
        set_device(None)
    out = capsys.readouterr()
    text = out.out + out.err
    assert "Tried to allocate 9.00 GiB" in text
    assert "1. smaller training images: data.width=64 data.height=64" in text
