"""From visible faces to pixels: shading once per pixel and face, box-averaged over the samples."""

from __future__ import annotations

import numpy as np
from numba import njit

from threestudio_redream.assets.raster_numba_texture import sample_texture
from threestudio_redream.assets.raster_numba_visibility import face_setup
from threestudio_redream.assets.raster_pack import BLEND, FACTOR, LEVEL_COUNT, MODE
from threestudio_redream.assets.shading import HEADLIGHT_AMBIENT, WORLD_AMBIENT, WORLD_LIGHT

__all__ = ["resolve_band"]

_BYTE = 1.0 / 255.0
_LIGHT_X, _LIGHT_Y, _LIGHT_Z = WORLD_LIGHT


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _decode(value):
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _encode(value):
    return value * 12.92 if value <= 0.0031308 else 1.055 * value ** (1.0 / 2.4) - 0.055


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _times(colour, factor):
    """Product in linear light of two encoded values; exact shortcuts for white."""
    if factor == 1.0:
        return colour
    if colour == 1.0:
        return factor
    return _encode(_decode(colour) * _decode(factor))


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _ray(view, x, y):
    """Unit world direction through a sample, and the ratio of distance along it to depth Z."""
    r0, r1, r2, u0, u1, u2, w0, w1, w2, _, _, _, focal, center_x, center_y = view
    right, up = (x - center_x) / focal, -(y - center_y) / focal
    dx, dy, dz = right * r0 + up * u0 - w0, right * r1 + up * u1 - w1, right * r2 + up * u2 - w2
    norm = np.sqrt(dx * dx + dy * dy + dz * dz)
    inverse = 1.0 / norm
    return dx * inverse, dy * inverse, dz * inverse, norm


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _normal(p, view, i, j, k, b0, b1, b2):
    """Interpolated unit normal on the side of the surface that the camera sees."""
    ux, uy, uz = float(p[j, 0]) - p[i, 0], float(p[j, 1]) - p[i, 1], float(p[j, 2]) - p[i, 2]
    vx, vy, vz = float(p[k, 0]) - p[i, 0], float(p[k, 1]) - p[i, 1], float(p[k, 2]) - p[i, 2]
    gx, gy, gz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    if gx * (view[9] - p[i, 0]) + gy * (view[10] - p[i, 1]) + gz * (view[11] - p[i, 2]) < 0.0:
        gx, gy, gz = -gx, -gy, -gz
    nx = b0 * p[i, 3] + b1 * p[j, 3] + b2 * p[k, 3]
    ny = b0 * p[i, 4] + b1 * p[j, 4] + b2 * p[k, 4]
    nz = b0 * p[i, 5] + b1 * p[j, 5] + b2 * p[k, 5]
    side = nx * gx + ny * gy + nz * gz
    if side == 0.0:
        nx, ny, nz = gx, gy, gz
    elif side < 0.0:
        nx, ny, nz = -nx, -ny, -nz
    inverse = 1.0 / np.sqrt(nx * nx + ny * ny + nz * nz)
    return nx * inverse, ny * inverse, nz * inverse


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _shade(p, faces, materials, levels, texels, has_colors, view, shading, f, setup, x, y, extent):
    """Premultiplied colour of face ``f`` at sample position ``(x, y)``.

    ``extent`` is the side, in samples, of the square that the look-up stands for.
    """
    i, j, k, material = faces[f, 0], faces[f, 1], faces[f, 2], faces[f, 3]
    a0, d0, c0, a1, d1, c1, a2, d2, c2, _, _, _, _ = setup
    e0, e1, e2 = a0 * x + d0 * y + c0, a1 * x + d1 * y + c1, a2 * x + d2 * y + c2
    inverse = 1.0 / (e0 + e1 + e2)
    b0, b1, b2 = e0 * inverse, e1 * inverse, e2 * inverse
    red, green, blue = materials[material, FACTOR], materials[material, FACTOR + 1], materials[material, FACTOR + 2]
    alpha = materials[material, FACTOR + 3]
    if materials[material, LEVEL_COUNT] > 0.0:
        u0, u1, u2 = float(p[i, 6]), float(p[j, 6]), float(p[k, 6])
        v0, v1, v2 = float(p[i, 7]), float(p[j, 7]), float(p[k, 7])
        u, v = b0 * u0 + b1 * u1 + b2 * u2, b0 * v0 + b1 * v1 + b2 * v2
        scale = extent * inverse
        ux = (a0 * (u0 - u) + a1 * (u1 - u) + a2 * (u2 - u)) * scale
        uy = (d0 * (u0 - u) + d1 * (u1 - u) + d2 * (u2 - u)) * scale
        vx = (a0 * (v0 - v) + a1 * (v1 - v) + a2 * (v2 - v)) * scale
        vy = (d0 * (v0 - v) + d1 * (v1 - v) + d2 * (v2 - v)) * scale
        red, green, blue, opacity = sample_texture(materials, levels, texels, material, u, v, ux, uy, vx, vy)
        red, green, blue, alpha = red * _BYTE, green * _BYTE, blue * _BYTE, alpha * opacity * _BYTE
    if has_colors:
        red = _times(red, b0 * p[i, 8] + b1 * p[j, 8] + b2 * p[k, 8])
        green = _times(green, b0 * p[i, 9] + b1 * p[j, 9] + b2 * p[k, 9])
        blue = _times(blue, b0 * p[i, 10] + b1 * p[j, 10] + b2 * p[k, 10])
        alpha *= b0 * p[i, 11] + b1 * p[j, 11] + b2 * p[k, 11]
    if materials[material, MODE] != BLEND:
        alpha = 1.0
    light = alpha
    if shading != 0:
        nx, ny, nz = _normal(p, view, i, j, k, b0, b1, b2)
        if shading == 1:
            dx, dy, dz, _ = _ray(view, x, y)
            light *= HEADLIGHT_AMBIENT + (1.0 - HEADLIGHT_AMBIENT) * max(-(nx * dx + ny * dy + nz * dz), 0.0)
        else:
            toward = nx * _LIGHT_X + ny * _LIGHT_Y + nz * _LIGHT_Z
            light *= WORLD_AMBIENT + (1.0 - WORLD_AMBIENT) * 0.5 * (1.0 + toward)
    return red * light, green * light, blue * light, alpha


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _geometry(p, faces, view, f, setup, x, y):
    """Distance along the unit ray and the normal, turned to graze where it would face away."""
    a0, d0, c0, a1, d1, c1, a2, d2, c2, az, bz, cz, _ = setup
    e0, e1, e2 = a0 * x + d0 * y + c0, a1 * x + d1 * y + c1, a2 * x + d2 * y + c2
    scale = 1.0 / (e0 + e1 + e2)
    nx, ny, nz = _normal(p, view, faces[f, 0], faces[f, 1], faces[f, 2], e0 * scale, e1 * scale, e2 * scale)
    dx, dy, dz, stretch = _ray(view, x, y)
    away = nx * dx + ny * dy + nz * dz
    if away > 0.0:
        nx, ny, nz = nx - away * dx, ny - away * dy, nz - away * dz
        norm = np.sqrt(nx * nx + ny * ny + nz * nz)
        nx, ny, nz = nx / norm, ny / norm, nz / norm
    return stretch / (az * x + bz * y + cz), nx, ny, nz


@njit(cache=True, nogil=True, error_model="numpy")
def resolve_band(
    p, faces, materials, levels, texels, has_colors,
    view, h, seen, rows, box, supersample, shading, order, rgba, depth, normal,
):
    """Average the samples of a band into the pixels of one view.

    ``seen`` is ``[1 + layers, samples]``: the solid face, then blended faces from near to far, -1 for
    none. ``rows`` is (first pixel row, one past the last), ``box`` the covered pixels of the view.
    Samples of a pixel that see the same faces are shaded together, at their centroid.
    """
    count = supersample * supersample
    width = box[2] * supersample
    layers = seen.shape[0]
    ids = np.zeros((layers, count), np.int32)
    pending = np.zeros(count, np.bool_)
    cached = np.int32(-1)
    setup = face_setup(h, 0, 0, 0)
    for row in range(rows[0], rows[1]):
        for column in range(box[0], box[0] + box[2]):
            index = (row - rows[0]) * supersample * width + (column - box[0]) * supersample
            uniform = True
            for layer in range(layers):
                for line in range(index, index + supersample * width, width):
                    for sample in range(line, line + supersample):
                        uniform &= seen[layer, sample] == seen[0, index]
            if uniform and seen[0, index] < 0:
                continue
            q = 0
            for line in range(index, index + supersample * width, width):
                for sample in range(line, line + supersample):
                    hit = False
                    for layer in range(layers):
                        ids[layer, q] = seen[layer, sample]
                        hit |= ids[layer, q] >= 0
                    pending[q] = hit
                    q += 1
            # Depth and normal of the covered sample nearest to the pixel centre, of its front surface.
            q = 0
            while not pending[order[q]]:
                q += 1
            q = order[q]
            f = ids[0, q]
            for layer in range(1, layers):
                if ids[layer, q] >= 0:
                    f = ids[layer, q]
                    break
            if f != cached:
                setup = face_setup(h, faces[f, 0], faces[f, 1], faces[f, 2])
                cached = f
            x_base, y_base = column * supersample + 0.5, row * supersample + 0.5
            x, y = x_base + q % supersample, y_base + q // supersample
            distance, nx, ny, nz = _geometry(p, faces, view, f, setup, x, y)
            depth[row, column, 0] = distance
            normal[row, column, 0], normal[row, column, 1], normal[row, column, 2] = nx, ny, nz
            red, green, blue, alpha = 0.0, 0.0, 0.0, 0.0
            for q in range(count):
                if not pending[q]:
                    continue
                if uniform:
                    same, sum_x, sum_y = count, count * (supersample - 1) // 2, count * (supersample - 1) // 2
                else:
                    same, sum_x, sum_y = 0, 0, 0
                    for other in range(q, count):
                        equal = pending[other]
                        for layer in range(layers):
                            equal &= ids[layer, other] == ids[layer, q]
                        if equal:
                            pending[other] = False
                            same += 1
                            sum_x += other % supersample
                            sum_y += other // supersample
                x, y = x_base + sum_x / same, y_base + sum_y / same
                extent = np.sqrt(float(same))
                remaining = float(same)
                for step in range(layers):
                    f = ids[step + 1 if step + 1 < layers else 0, q]  # blended from near to far, then solid
                    if f < 0:
                        continue
                    if f != cached:
                        setup = face_setup(h, faces[f, 0], faces[f, 1], faces[f, 2])
                        cached = f
                    r, g, b, a = _shade(
                        p, faces, materials, levels, texels, has_colors, view, shading, f, setup, x, y, extent
                    )
                    red, green, blue = red + remaining * r, green + remaining * g, blue + remaining * b
                    alpha += remaining * a
                    remaining *= 1.0 - a
                if uniform:
                    break
            rgba[row, column, 0], rgba[row, column, 1] = red / count, green / count
            rgba[row, column, 2], rgba[row, column, 3] = blue / count, alpha / count
