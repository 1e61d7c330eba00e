import json
import os
import random
import signal
import time
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from threestudio_redream.errors import CheckpointError
from threestudio_redream.runtime.checkpoint import (
    SafeCheckpointIO,
    load_module_weights,
    newest_checkpoint,
    read_checkpoint,
    resolve_checkpoint,
    write_checkpoint,
)
from threestudio_redream.runtime.rng import capture_rng, restore_rng, step_generator
from threestudio_redream.runtime.state_tree import decode, encode


def _assert_same(a, b):
    assert type(a) is type(b) or (isinstance(a, dict) and isinstance(b, dict))
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            _assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            _assert_same(x, y)
    else:
        assert a == b or (a != a and b != b)


def test_a_full_state_round_trips(tmp_path):
    shared = torch.randn(3, 4)
    tree = {
        "epoch": 1,
        "global_step": 7,
        "state_dict": OrderedDict([("a.w", shared), ("a.view", shared[1:]), ("b", torch.zeros(0))]),
        "optimizer": {0: {"step": torch.tensor(3.0), "exp": torch.randn(2).bfloat16()}, 1: {}},
        "mixed": [None, True, -3, 1.5, float("inf"), "text", b"\x00\xff", (1, (2.0, "x")), {3, 1}],
        "numpy": np.arange(6, dtype=np.int64).reshape(2, 3),
        "key": np.array([1, 2**32 - 1], np.uint32),
        "scalar": np.float32(0.25),
        "types": [torch.float16, torch.device("cpu")],
        "counts": defaultdict(int, a=1),
        "odd": {"$": "a user's key", "v": 2},
        "path": Path("a/b"),
        "bool": torch.tensor([True, False]),
    }
    path = tmp_path / "x.safetensors"
    write_checkpoint(path, tree)
    back = read_checkpoint(path)
    expected = dict(tree, scalar=0.25, path="a/b", counts={"a": 1}, state_dict=dict(tree["state_dict"]))
    _assert_same(expected, back)
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_unsafe_values_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"/callbacks/1/fn.*'function'"):
        write_checkpoint(tmp_path / "x.safetensors", {"callbacks": [0, {"fn": _assert_same}]})
    assert list(tmp_path.iterdir()) == []
    deep: list = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(CheckpointError, match="deeply"):
        write_checkpoint(tmp_path / "x.safetensors", {"deep": deep})


def test_damage_is_noticed_and_older_files_are_used(tmp_path):
    for step in (10, 20, 30):
        write_checkpoint(
            tmp_path / f"epoch=0-step={step}.safetensors",
            {"epoch": 0, "global_step": step, "state_dict": {"w": torch.ones(64) * step}},
        )
    newest = tmp_path / "epoch=0-step=30.safetensors"
    data = bytearray(newest.read_bytes())
    data[-3] ^= 0x40
    newest.write_bytes(data)
    with pytest.raises(CheckpointError, match="checksum"):
        read_checkpoint(newest)
    newest.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(newest)
    (tmp_path / ".half.tmp.safetensors").write_bytes(b"junk")
    assert newest_checkpoint(tmp_path).name == "epoch=0-step=20.safetensors"
    assert newest_checkpoint(tmp_path / "absent") is None


def test_foreign_files_are_refused(tmp_path):
    other = tmp_path / "weights.safetensors"
    save_file({"w": torch.ones(2)}, other)
    with pytest.raises(CheckpointError, match=r"weights alone.*system\.weights"):
        read_checkpoint(other)
    pickled = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}}, pickled)  # noqa: TID251 (the foreign file that must be refused)
    with pytest.raises(CheckpointError, match="pickles"):
        read_checkpoint(pickled)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_checkpoint(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("key", ["tree", "sha256"])
def test_a_checkpoint_without_its_state_is_damaged(tmp_path, key):
    """One letter of a name in the header is enough."""
    path = tmp_path / "x.safetensors"
    write_checkpoint(path, {"epoch": 0, "t": torch.arange(5.0)})
    data = path.read_bytes()
    assert data.count(f'"{key}"'.encode()) == 1
    path.write_bytes(data.replace(f'"{key}"'.encode(), f'"{key[:-1]}X"'.encode()))
    with pytest.raises(CheckpointError, match="damaged: its checksum"):
        read_checkpoint(path)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 10_000))
def test_fuzzed_files_give_named_errors(tmp_path_factory, noise, at):
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / "x.safetensors"
    write_checkpoint(path, {"epoch": 0, "list": [1, {"$": 2}], "t": torch.arange(50.0)})
    data = path.read_bytes()
    at %= len(data)
    path.write_bytes(data[:at] + noise + data[at + len(noise) :])
    try:
        tree = read_checkpoint(path)
    except CheckpointError:
        return
    assert tree["epoch"] == 0


@pytest.mark.parametrize(
    "value",
    [
        {"$": "tensor", "v": "absent"},
        {"$": "eval", "v": "1"},
        {"$": "dtype", "v": "load"},
        {"$": "tuple", "v": 3},
        {"$": "numpy"},
    ],
)
def test_malformed_trees_give_named_errors(value):
    with pytest.raises(CheckpointError):
        decode(value, {})


values = st.floats(-1e6, 1e6, width=32).map(lambda number: torch.tensor([number]))
names = st.text() | st.integers() | st.sampled_from(["a", "b", "a/b", "0", "", "tensor", "key"])
plain_tree = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | values,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(plain_tree)
@example({"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}})
@example({0: torch.zeros(1), "0": torch.ones(1)})
@example({"": torch.zeros(1), "tensor": torch.ones(1)})
def test_any_plain_tree_round_trips(tree):
    value, tensors = encode(tree)
    _assert_same(tree, decode(json.loads(json.dumps(value)), tensors))


def test_resolve_accepts_files_folders_and_last(tmp_path):
    trial = tmp_path / "trial"
    path = trial / "ckpts" / "epoch=0-step=5.safetensors"
    write_checkpoint(path, {"epoch": 0, "global_step": 5, "state_dict": {}})
    assert resolve_checkpoint(None, trial) is None
    assert resolve_checkpoint("last", trial) == path
    assert resolve_checkpoint("last", tmp_path / "fresh") is None
    assert resolve_checkpoint(str(trial), tmp_path) == path
    assert resolve_checkpoint(str(path.with_suffix(".ckpt")), tmp_path) == path
    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        resolve_checkpoint(str(tmp_path), tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        resolve_checkpoint(str(tmp_path / "nothing.ckpt"), tmp_path)


def test_module_weights(tmp_path):
    state = {"geometry.a": torch.ones(1), "geometry.b.c": torch.zeros(1), "material.x": torch.ones(2)}
    path = tmp_path / "x.safetensors"
    write_checkpoint(path, {"epoch": 2, "global_step": 9, "state_dict": state})
    only, epoch, step = load_module_weights(path, module_name="geometry")
    assert (set(only), epoch, step) == ({"a", "b.c"}, 2, 9)
    without, _, _ = load_module_weights(path, ignore_modules=["material"])
    assert set(without) == {"geometry.a", "geometry.b.c"}
    with pytest.raises(CheckpointError, match="geometry, material"):
        load_module_weights(path, module_name="guidance")
    with pytest.raises(CheckpointError, match="exclude"):
        load_module_weights(path, module_name="geometry", ignore_modules=["material"])


def test_a_damaged_checkpoint_is_passed_over_aloud(tmp_path, caplog):
    folder = tmp_path / "ckpts"
    for step in (5, 10):
        write_checkpoint(folder / f"epoch=0-step={step}.safetensors", {"global_step": step})
    newest = folder / "epoch=0-step=10.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert resolve_checkpoint("last", tmp_path).name == "epoch=0-step=5.safetensors"
    assert "step=10" in caplog.text
    (folder / "epoch=0-step=5.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"No checkpoint of this trial can be read.*delete them"):
        resolve_checkpoint("last", tmp_path)


def test_weights_of_upstream_after_the_conversion_that_the_faq_gives(tmp_path):
    old, new = tmp_path / "old.ckpt", tmp_path / "new.safetensors"
    torch.save({"state_dict": {"geometry.a": torch.ones(2), "material.m": torch.zeros(1)}}, old)  # noqa: TID251
    with pytest.raises(CheckpointError, match=r"docs/faq\.md.*system\.weights=FILE"):
        load_module_weights(old)
    save_file(torch.load(old, weights_only=True)["state_dict"], new)  # noqa: TID251
    state, epoch, step = load_module_weights(new)
    assert (sorted(state), epoch, step) == (["geometry.a", "material.m"], 0, 0)
    only, _, _ = load_module_weights(new, module_name="geometry")
    assert torch.equal(only["a"], torch.ones(2))


def test_lightning_plugin(tmp_path):
    io = SafeCheckpointIO()
    path = tmp_path / "sub" / "x.safetensors"
    io.save_checkpoint({"w": torch.ones(2), "more": [(torch.zeros(1),)]}, path)
    assert io.load_checkpoint(path, map_location="cpu")["more"][0][0].item() == 0
    io.remove_checkpoint(path)
    io.remove_checkpoint(path)
    assert not path.exists()


def _write_for_ever(folder, report):
    torch.set_num_threads(1)
    step = 0
    while True:
        step += 1
        tree = {"step": step, "w": torch.full((200_000,), float(step))}
        write_checkpoint(folder / f"epoch=0-step={step % 2}.safetensors", tree)
        os.write(report, f"{step}\n".encode())


def test_kill_while_writing_never_leaves_a_broken_file(tmp_path):
    rng = random.Random(0)
    for _ in range(8):
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _write_for_ever(tmp_path, write_end)
            finally:
                os._exit(1)
        os.close(write_end)
        os.read(read_end, 2)  # the first file is there
        time.sleep(rng.uniform(0.002, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(read_end) as pipe:
            acknowledged = [int(line) for line in pipe.read().split()]
        steps = []
        for path in (p for p in tmp_path.glob("*.safetensors") if not p.name.startswith(".")):
            tree = read_checkpoint(path)
            assert torch.equal(tree["w"], torch.full((200_000,), float(tree["step"])))
            steps.append(tree["step"])
        assert max(steps) >= max(acknowledged, default=1)


def test_rng_states_restore_every_generator():
    random.random(), np.random.normal(), torch.rand(1)  # noqa: NPY002
    state = capture_rng()
    value, tensors = encode(state)

    def draw():
        return random.random(), float(np.random.normal()), float(np.random.random()), torch.randn(3).tolist()  # noqa: NPY002

    first = draw()
    assert draw() != first
    restore_rng(decode(json.loads(json.dumps(value)), tensors))
    assert draw() == first


def test_step_generators_depend_only_on_their_arguments():
    def draw(*key):
        return torch.rand(4, generator=step_generator(*key)).tolist()

    torch.rand(1)
    assert draw(0, 5) == draw(0, 5)
    assert len({tuple(draw(*key)) for key in [(0, 5), (0, 6), (1, 5), (0, 5, 1)]}) == 4
