"""Textures from pictures of the field."""

import numpy as np
import pytest

from threestudio_redream.assets.rasteriser import AssetRenderer
from threestudio_redream.cameras import look_at, pixel_rays
from threestudio_redream.errors import ConfigError, EmptySceneError
from threestudio_redream.meshing import (
    Mesh,
    Pictures,
    Projection,
    as_asset,
    bake,
    extract_textured_mesh,
    mesh_depths,
    take_pictures,
    unwrap,
    with_normals,
)

FOVY, SIDE = 40.0, 64
GREY = 0.25


def square(x, half):
    """In the plane x = ``x``, seen from +x."""
    corners = np.float32([[x, -half, half], [x, half, half], [x, half, -half], [x, -half, -half]])
    return Mesh(corners, np.array([[0, 2, 1], [0, 3, 2]]), np.tile(np.float32([1, 0, 0]), (4, 1)))


def joined(first, second):
    return Mesh(
        np.concatenate([first.vertices, second.vertices]),
        np.concatenate([first.faces, second.faces + len(first.vertices)]),
        np.concatenate([first.normals, second.normals]),
    )


def one_camera(rgba, position=(2.0, 0.0, 0.0)):
    return Pictures(np.float32(rgba)[None], look_at(np.float32([position])), FOVY)


def grey(points):
    return np.full((len(points), 3), GREY, np.float32)


def colored(solid, solids, resolution=96):
    mesh = with_normals(solids.surface(solid, resolution))
    return Mesh(mesh.vertices, mesh.faces, mesh.normals, np.clip(solids.color(mesh.vertices), 0, 1).astype(np.float32))


def drawn(mesh):
    """Pictures of a mesh, as a field with this surface would show it."""
    renderer = AssetRenderer(as_asset(mesh), supersample=3)
    return lambda c2w, fovy_deg, side: renderer(c2w, fovy_deg, side, side).rgba


def test_a_point_takes_the_colour_of_the_pixel_that_shows_it():
    """Rays are the inverse of the projection, on an oblique camera."""
    rng = np.random.default_rng(0)
    rgba = np.concatenate([rng.random((SIDE, SIDE, 3)), np.ones((SIDE, SIDE, 1))], axis=2)
    pictures = one_camera(rgba, (1.6, 0.7, 0.9))
    mesh = square(0.0, 2.0)
    origins, directions = pixel_rays(pictures.c2w, FOVY, SIDE, SIDE)
    distance = -origins[..., 0] / directions[..., 0]
    points = (origins + distance[..., None] * directions)[0].reshape(-1, 3)
    normals = np.tile(np.float32([1, 0, 0]), (len(points), 1))
    found = Projection(mesh, pictures)(points, normals, np.tile(rgba[..., :3].mean(axis=(0, 1)), (len(points), 1)))
    cosine = -directions[0].reshape(-1, 3)[:, :1]
    weight = cosine**2 / (cosine**2 + 0.02)
    expected = weight * rgba[..., :3].reshape(-1, 3) + (1.0 - weight) * rgba[..., :3].mean(axis=(0, 1))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_pictures_weigh_by_opacity_and_squared_cosine():
    rgba = np.zeros((2, SIDE, SIDE, 4), np.float32)
    rgba[0] = [0.5, 0.0, 0.0, 0.5]  # half-transparent red, premultiplied
    rgba[1] = [0.0, 0.0, 1.0, 1.0]
    tilted = 2.0 * np.float32([np.cos(np.pi / 3), np.sin(np.pi / 3), 0.0])
    pictures = Pictures(rgba, look_at(np.stack([np.float32([2, 0, 0]), tilted])), FOVY)
    point, normal = np.zeros((1, 3), np.float32), np.float32([[1, 0, 0]])
    found = Projection(square(0.0, 1.0), pictures)(point, normal, np.float32([[0, 1, 0]]))
    weights = np.array([0.5, 0.02, 0.25])  # 1 x 0.5; the given colour; cos(60 degrees)^2 x 1
    np.testing.assert_allclose(found[0], weights / weights.sum(), atol=1e-5)


def test_what_is_hidden_or_turned_away_keeps_its_colour():
    scene = joined(square(0.0, 0.5), square(0.4, 0.1))
    red = np.zeros((SIDE, SIDE, 4), np.float32) + np.float32([1, 0, 0, 1])
    projection = Projection(scene, one_camera(red))
    points = np.float32([[0, 0, 0], [0, 0.35, 0.35], [0.4, 0.0, 0.0], [0, 0.35, 0.35]])
    normals = np.float32([[1, 0, 0], [1, 0, 0], [1, 0, 0], [-1, 0, 0]])
    found = projection(points, normals, grey(points))
    np.testing.assert_array_equal(found[[0, 3]], GREY)  # behind the small square; seen from the back
    assert (found[[1, 2], 0] > 0.95).all()
    assert (found[[1, 2], 1] < 0.01).all()


def test_what_shows_nothing_changes_nothing():
    points = np.float32([[0, 0, 0], [0, 0.3, 0.1]])
    projection = Projection(square(0.0, 0.5), one_camera(np.zeros((SIDE, SIDE, 4))))
    np.testing.assert_allclose(projection(points, np.float32([[1, 0, 0]] * 2), grey(points)), GREY, atol=1e-6)


def test_pictures_are_filled_by_the_mesh(solids):
    mesh = solids.surface(solids.cuboid, 32)
    moved = Mesh(mesh.vertices * 0.3 + np.float32([0.4, -0.2, 0.5]), mesh.faces)
    pictures = take_pictures(drawn(moved), moved, 12, 48)
    opacity = pictures.rgba[..., 3]
    border = np.concatenate([opacity[:, 0], opacity[:, -1], opacity[:, :, 0], opacity[:, :, -1]], axis=1)
    assert border.max() == 0.0
    assert (opacity.max(axis=2).sum(axis=1) > 20).all()  # rows: of 48
    toward = pictures.c2w[:, :3, 3] - moved.vertices.mean(axis=0)
    assert np.abs((toward / np.linalg.norm(toward, axis=1, keepdims=True)).mean(axis=0)).max() < 0.1  # from all around
    hit = mesh_depths(moved, pictures.c2w, FOVY, 48, 48) > 0
    assert (hit == (opacity > 0.5)).mean() > 0.999


def test_pictures_that_are_none_are_refused(solids):
    mesh = solids.surface(solids.sphere, 16)
    with pytest.raises(ConfigError, match=r"must have the shape \[B, S, S, 4\].*\(3, 8, 8, 3\).*premultiplied"):
        take_pictures(lambda c2w, fovy, side: np.zeros((3, side, side, 3)), mesh, 3, 8)
    with pytest.raises(EmptySceneError, match="NaN"):
        take_pictures(lambda c2w, fovy, side: np.full((3, side, side, 4), np.nan), mesh, 3, 8)
    with pytest.raises(ConfigError, match=r"nothing to look at.*\(0, 8\)"):
        take_pictures(drawn(mesh), mesh, 0, 8)


@pytest.mark.parametrize("shape", ["torus", "cuboid"])
def test_a_texture_of_pictures_alone_shows_the_solid(solids, shape):
    """The field says grey everywhere; the pictures know the colours."""
    truth = colored(getattr(solids, shape), solids)
    mesh = with_normals(solids.surface(getattr(solids, shape), 48, faces=1500))
    unwrapped = unwrap(mesh, 128)
    projection = Projection(mesh, take_pictures(drawn(truth), mesh, 24, 192))
    texture = bake(unwrapped.mesh, unwrapped.uvs, grey, 128, projection=projection)
    index, weights = solids.surface_samples(unwrapped.mesh.vertices, unwrapped.mesh.faces, 4000)
    points = solids.interpolate(unwrapped.mesh.vertices, unwrapped.mesh.faces, index, weights)
    shown = solids.bilinear(texture, solids.interpolate(unwrapped.uvs, unwrapped.mesh.faces, index, weights))
    error = np.abs(shown - np.clip(solids.color(points), 0, 1))
    assert error.mean() < 0.015
    assert np.quantile(error, 0.99) < 0.08
    assert np.abs(GREY - solids.color(points)).mean() > 0.2  # a texture without them would be far away


def test_a_cloud_looks_as_in_its_pictures(solids):
    """A blue ball in a thin red haze: the level set lies in the haze, what one sees is blue."""
    red, blue = np.float32([1, 0, 0]), np.float32([0, 0, 1])

    def level(points):
        return np.where(np.linalg.norm(points, axis=1) < 0.5, 200.0, 20.0 * (np.linalg.norm(points, axis=1) < 0.53))

    def color(points):
        return np.where((np.linalg.norm(points, axis=1) < 0.5)[:, None], blue, red)

    def seen(c2w, fovy_deg, side):
        """The ball, through 1 - exp(-20 x 0.03) = 45 % of haze."""
        origins, directions = pixel_rays(c2w, fovy_deg, side, side)
        middle = -np.einsum("bhwi,bhwi->bhw", origins, directions)
        apart = np.linalg.norm(origins + middle[..., None] * directions, axis=-1)
        rgba = np.zeros((*apart.shape, 4), np.float32)
        rgba[apart < 0.53] = [*(0.45 * red + 0.55 * blue), 1.0]
        return rgba

    settings = {"resolution": 40, "threshold": 10.0, "target_faces": 800, "texture_size": 64, "padding": 1}
    plain, _ = extract_textured_mesh(level, color, solids.BOX, **settings)
    stages = []
    mesh, report = extract_textured_mesh(
        level, color, solids.BOX, view_fn=seen, progress=lambda stage, part: stages.append(stage), **settings
    )
    np.testing.assert_array_equal(mesh.vertices, plain.vertices)
    assert plain.texture[..., 2].mean() < 0.5 * mesh.texture[..., 2].mean()
    np.testing.assert_allclose(mesh.texture.reshape(-1, 3).mean(axis=0) / 255.0, [0.45, 0.0, 0.55], atol=0.03)
    assert "pictures" in report.timings
    assert stages.index("unwrap") < stages.index("pictures") < stages.index("bake")
