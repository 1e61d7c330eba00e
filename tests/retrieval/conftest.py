"""Fixtures of the retrieval tests: a small CLIP with random weights, in transformers' layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a two-layer CLIP whose tensors all differ from their initial values."""
    import torch
    from transformers import CLIPModel

    from tools.mini.tokenizer import learn_tokenizer
    from tools.mini.train_clip import clip_config, save_clip
    from tools.mini.words import corpus

    torch.manual_seed(0)
    tokenizer = learn_tokenizer(corpus())
    generator = torch.Generator().manual_seed(11)
    model = CLIPModel(clip_config(tokenizer, width=64, layers=4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    folder = tmp_path_factory.mktemp("tiny-clip")
    save_clip(model, tokenizer, folder)
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For such small layers the threads of a pool cost more than they give."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
