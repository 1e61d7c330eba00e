"""Tests of the mini lab compute little at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """For such small layers the threads of a pool cost more than they give, many times more on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_renders(tmp_path: Path) -> Path:
    """A finished set of 24 noise pictures, as ``render_library`` would leave it."""
    from tools.mini.descriptors import DESCRIPTORS
    from tools.mini.kinds import load_kinds

    rng, table = np.random.default_rng(0), load_kinds()
    rgba = rng.integers(0, 256, (24, 64, 64, 4), np.uint8)
    rgba[..., :3] = np.minimum(rgba[..., :3], rgba[..., 3:])
    columns = [rng.integers(0, len(table), 24), rng.integers(0, len(DESCRIPTORS), 24), rng.uniform(0, 360, 24)]
    columns += [rng.uniform(-10, 80, 24), rng.integers(0, 2, 24), np.arange(24)]
    folder = tmp_path / "renders"
    folder.mkdir()
    np.save(folder / "rgba.npy", rgba)
    np.save(folder / "labels.npy", np.stack(columns, axis=1).astype(np.float32))
    about = {"kinds": list(table), "descriptors": list(DESCRIPTORS), "fronted": [kind.front for kind in table.values()]}
    (folder / "set.json").write_text(json.dumps(about), encoding="utf-8")
    return folder
