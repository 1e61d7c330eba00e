"""The judge and the count of fronts on known cases: sound objects, and the same with a face on the back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from threestudio_redream.assets import Asset, load_asset, normalise
from threestudio_redream.cameras import orbit_c2w
from threestudio_redream.evaluation.judging import judge_turn
from threestudio_redream.geometry.asset_prior import AssetViews
from threestudio_redream.mini.judge import Judge

ASSETS = sorted((Path(__file__).resolve().parents[2] / "retrieval_index" / "mini" / "assets").glob("*.glb"))
VIEWS = 12


def two_faced(asset: Asset) -> Asset:
    """The front half of an asset (+x) and its mirror image behind it."""
    flip = np.array([-1, 1, 1], np.float32)
    front = asset.vertices[asset.faces].mean(1)[:, 0] > 0
    faces = asset.faces[front]

    def twice(values):
        return None if values is None else np.concatenate([values, values])

    return replace(
        asset,
        vertices=np.concatenate([asset.vertices, asset.vertices * flip]),
        normals=np.concatenate([asset.normals, asset.normals * flip]),
        faces=np.concatenate([faces, faces[:, ::-1] + len(asset.vertices)]).astype(np.int32),
        uvs=twice(asset.uvs),
        colors=twice(asset.colors),
        face_materials=twice(asset.face_materials[front]),
    )


def turn(asset: Asset) -> torch.Tensor:
    cameras = orbit_c2w([360.0 * i / VIEWS for i in range(VIEWS)], [15.0] * VIEWS, [1.46] * VIEWS)
    fovy = torch.full((VIEWS,), 40.0).deg2rad()
    return AssetViews([asset])(0, torch.from_numpy(cameras), fovy, 128, 128, torch.full((1, 1, 1, 3), 0.6)).rgb


@pytest.fixture(scope="module")
def verdicts():
    """``(janus of the asset, janus of its two-faced version, recognised)`` for all assets that have a front."""
    judge = Judge.load()
    found = []
    for path in ASSETS:
        kind, finish = path.stem.split("-")[:2]
        if judge.fronted[judge.kinds.index(kind)]:
            asset = normalise(load_asset(path))
            sound, double = (judge_turn(judge, turn(shape), finish, kind) for shape in (asset, two_faced(asset)))
            found.append((sound["janus"], double["janus"], sound["recognised"]))
    return np.array(found)


def test_sound_objects_have_one_front(verdicts):
    assert len(verdicts) >= 100
    assert verdicts[:, 0].mean() <= 0.05
    assert verdicts[:, 2].mean() >= 0.95


def test_a_face_copied_to_the_back_is_found(verdicts):
    assert verdicts[:, 1].mean() >= 0.9
