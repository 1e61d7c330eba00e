"""The full-scale configurations on a model of full size. Minutes and 16 GB each, so only when asked for."""

import os
from pathlib import Path

import pytest

from tools.full_size_layout import save_layout
from tools.full_size_run import CONFIGS, run_config

pytestmark = [
    pytest.mark.full_size,
    pytest.mark.skipif(
        os.environ.get("REDREAM_FULL_SIZE") != "1",
        reason="a model of full size: set REDREAM_FULL_SIZE=1 (16 GB of memory, 10 minutes a configuration)",
    ),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    kept = os.environ.get("REDREAM_FULL_SIZE_MODEL")
    return Path(kept) if kept else save_layout(tmp_path_factory.mktemp("sd21-base"))


@pytest.mark.parametrize("name", CONFIGS)
def test_two_steps_of_full_size(name, model, tmp_path):
    figures = run_config(name, model, 2, tmp_path)
    assert figures["changed"]
    assert all(figures["changed"].values())
    assert figures["peak_rss_gib"] < 20.0
