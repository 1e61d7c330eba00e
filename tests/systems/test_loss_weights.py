"""Misspelt weights are refused, those of other extensions are not."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from threestudio_redream.errors import ConfigError
from threestudio_redream.systems.loss_weights import KNOWN_TERMS, check_loss_weights
from threestudio_redream.systems.redream import PRIORS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("lambda_sparsty", "lambda_sparsity"),
        ("lamda_vsd", "lambda_vsd"),
        ("lambda_prior_rbg", "lambda_prior_rgb"),
        ("lambda_z_varience", "lambda_z_variance"),
        ("opaque", "lambda_opaque"),
    ],
)
def test_a_slip_is_refused_with_what_was_meant(key, meant):
    with pytest.raises(ConfigError, match=rf"system\.loss\.{key}.*Did you mean system\.loss\.{meant}\?"):
        check_loss_weights(["lambda_vsd", key])


def test_weights_of_others_pass():
    check_loss_weights(
        ["lambda_colour", "lambda_normal_consistency", "lambda_3d_smooth", "lambda_sdf", "lambda_normal"]
    )


def test_known_terms_are_far_enough_from_each_other():
    check_loss_weights(f"lambda_{term}" for term in KNOWN_TERMS)
    assert set(PRIORS) <= set(KNOWN_TERMS)


@pytest.mark.parametrize("path", sorted((ROOT / "custom_configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_weights_pass(path):
    loss = OmegaConf.to_container(OmegaConf.load(path), resolve=False).get("system", {}).get("loss", {})
    check_loss_weights(loss)
