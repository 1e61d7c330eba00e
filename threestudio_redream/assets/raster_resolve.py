"""From visible faces to pixels: texture look-ups, light and the box average. Numba kernels.

A pixel is shaded once per visible face, at the centroid of the samples that see it, with a texture
filter as large as those samples: bilinear, trilinear over mips, and several look-ups along the longer
axis of the footprint. The numpy reference is :mod:`.rasteriser_numpy`.
"""

from __future__ import annotations

import numpy as np

from threestudio_redream.kernels.jit import njit

__all__ = ["LOD_SCALE", "MAX_TAPS", "MINOR_SHARE", "resolve"]

#: Look-ups along the longer axis of a pixel's footprint.
MAX_TAPS = 8
#: Factor on the area of the footprint when the mip level is chosen; below 1 is sharper.
LOD_SCALE = 0.4
#: A face that holds less than one part in this many of a pixel's samples gets one bilinear look-up.
MINOR_SHARE = 4

# Copies of the constants in raster_pack and shading: numba's disk cache watches this file only, so a
# kernel compiled with a constant from elsewhere would outlive a change of it.
BLEND = 2
MODE, REPEAT, FIRST_LEVEL, LEVEL_COUNT, FACTOR = 0, 3, 4, 5, 6
HEADLIGHT_AMBIENT, WORLD_AMBIENT = 0.35, 0.45
_LIGHT_X, _LIGHT_Y, _LIGHT_Z = 0.48, 0.36, 0.8

_BYTE = 1.0 / 255.0
_ONE = float(1 << 24)


@njit(nogil=True, error_model="numpy", forceinline=True)
def _texel_pair(coordinate, size, repeat):
    """The two neighbours of a coordinate along one axis, and the weight of the second."""
    position = coordinate * size - 0.5
    base = np.floor(position)
    first = int(base)
    second = first + 1
    if first < 0 or second >= size:
        if repeat:
            first, second = first % size, second % size
        else:
            first, second = min(max(first, 0), size - 1), min(max(second, 0), size - 1)
    return first, second, position - base


@njit(nogil=True, error_model="numpy", forceinline=True)
def _add_bilinear(levels, texels, level, u, v, repeat, share, red_green, blue_alpha):
    """Add a bilinear look-up times ``share`` to two sums of 32-bit fields.

    Weights have 24 bits, texels 8, so one field holds a channel exactly as long as the shares of all
    look-ups sum to at most 1; two integer products replace four conversions and four float products.
    """
    offset, width, height = levels[level, 0], levels[level, 1], levels[level, 2]
    x0, x1, wx = _texel_pair(u, width, repeat)
    y0, y1, wy = _texel_pair(v, height, repeat)
    row0, row1 = offset + y0 * width, offset + y1 * width
    right, left = share * wx, share * (1.0 - wx)
    for corner in range(4):
        if corner == 0:
            texel, weight = texels[row0 + x0], left * (1.0 - wy)
        elif corner == 1:
            texel, weight = texels[row0 + x1], right * (1.0 - wy)
        elif corner == 2:
            texel, weight = texels[row1 + x0], left * wy
        else:
            texel, weight = texels[row1 + x1], right * wy
        wide, factor = np.uint64(texel), np.uint64(np.int64(weight * _ONE))
        low = (wide & np.uint64(0xFF)) | ((wide & np.uint64(0xFF00)) << np.uint64(24))
        high = ((wide >> np.uint64(16)) & np.uint64(0xFF)) | ((wide >> np.uint64(24)) << np.uint64(32))
        red_green += low * factor
        blue_alpha += high * factor
    return red_green, blue_alpha


@njit(nogil=True, error_model="numpy", forceinline=True)
def _into_unit(coordinate, repeat):
    """Wrap or clamp to [0, 1], so that no later conversion to an integer can overflow."""
    if repeat:
        return coordinate - np.floor(coordinate)
    return min(max(coordinate, 0.0), 1.0)


@njit(nogil=True, error_model="numpy", forceinline=True)
def _exponent(value):
    """``floor(log2(value))`` of a positive number, from its bits; 1024 for infinity and NaN."""
    return (np.float64(value).view(np.int64) >> 52) - 1023


@njit(nogil=True, error_model="numpy", forceinline=True)
def _unpack(red_green, blue_alpha):
    field, shift, scale = np.uint64(0xFFFFFFFF), np.uint64(32), _BYTE / _ONE
    return (
        np.int64(red_green & field) * scale,
        np.int64(red_green >> shift) * scale,
        np.int64(blue_alpha & field) * scale,
        np.int64(blue_alpha >> shift) * scale,
    )


@njit(nogil=True, error_model="numpy", forceinline=True)
def _sample_nearest_level(levels, texels, first, last, repeat, u, v, ux, uy, vx, vy):
    """One bilinear look-up in the mip level whose texels are about as large as the footprint."""
    area = abs(ux * vy - uy * vx) * levels[first, 1] * levels[first, 2] * LOD_SCALE
    level = min(first + max((_exponent(area) + 1) >> 1, 0), last)
    nothing = np.uint64(0)
    return _unpack(*_add_bilinear(levels, texels, level, u, v, repeat, 1.0, nothing, nothing))


@njit(nogil=True, error_model="numpy", forceinline=True)
def _sample_filtered(levels, texels, first, last, repeat, u, v, ux, uy, vx, vy):
    """Up to MAX_TAPS trilinear look-ups along the longer axis of the footprint."""
    width, height = levels[first, 1], levels[first, 2]
    # Squared singular values of the footprint, in texels: mean + spread and mean - spread.
    ux_texels, uy_texels, vx_texels, vy_texels = ux * width, uy * width, vx * height, vy * height
    xx = ux_texels * ux_texels + vx_texels * vx_texels
    yy = uy_texels * uy_texels + vy_texels * vy_texels
    xy = ux_texels * uy_texels + vx_texels * vy_texels
    mean, half = 0.5 * (xx + yy), 0.5 * (xx - yy)
    spread = np.sqrt(half * half + xy * xy)
    taps, step_u, step_v, area = 1, 0.0, 0.0, mean + spread
    if 1.0 < area < 1e12:  # beyond, the surface is seen edge-on or next to the eye: one look-up, last level
        ratio = area / max(mean - spread, 1.0)
        if ratio > 2.25:
            taps = int(min(np.sqrt(ratio) + 0.5, MAX_TAPS))
            # Screen direction of the longer axis: eigenvector of [[xx, xy], [xy, yy]] to mean + spread.
            along_x, along_y = (half + spread, xy) if half >= 0.0 else (xy, spread - half)
            norm = taps * np.sqrt(along_x * along_x + along_y * along_y)
            step_u, step_v = (ux * along_x + uy * along_y) / norm, (vx * along_x + vy * along_y) / norm
            u, v = u - 0.5 * (taps - 1) * step_u, v - 0.5 * (taps - 1) * step_v
        area = max(mean - spread, area / (taps * taps))
    area *= LOD_SCALE
    level = min(first + max(_exponent(area) >> 1, 0), last)
    # Between two levels the weight is linear in the size of the footprint, not in its logarithm.
    weight = np.sqrt(area) / (1 << (level - first)) - 1.0 if area > 1.0 and level < last else 0.0
    red_green, blue_alpha = np.uint64(0), np.uint64(0)
    coarse, fine = weight / taps, (1.0 - weight) / taps
    for _ in range(taps):
        share, below = fine, level
        while share > 0.0:
            red_green, blue_alpha = _add_bilinear(levels, texels, below, u, v, repeat, share, red_green, blue_alpha)
            share, below = (coarse, level + 1) if below == level else (0.0, level)
        u, v = u + step_u, v + step_v
    return _unpack(red_green, blue_alpha)


@njit(nogil=True, error_model="numpy", forceinline=True)
def _decode(value):
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


@njit(nogil=True, error_model="numpy", forceinline=True)
def _encode(value):
    return value * 12.92 if value <= 0.0031308 else 1.055 * value ** (1.0 / 2.4) - 0.055


@njit(nogil=True, error_model="numpy", forceinline=True)
def _times(colour, factor):
    """Product in linear light of two encoded values; exact shortcuts for white."""
    if factor == 1.0:
        return colour
    if colour == 1.0:
        return factor
    return _encode(_decode(colour) * _decode(factor))


@njit(nogil=True, error_model="numpy", forceinline=True)
def _ray(view, x, y):
    """Unit world direction through a sample, and the ratio of distance along it to depth Z."""
    right, up = (x - view[13]) / view[12], -(y - view[14]) / view[12]
    dx = right * view[0] + up * view[3] - view[6]
    dy = right * view[1] + up * view[4] - view[7]
    dz = right * view[2] + up * view[5] - view[8]
    norm = np.sqrt(dx * dx + dy * dy + dz * dz)
    inverse = 1.0 / norm
    return dx * inverse, dy * inverse, dz * inverse, norm


@njit(nogil=True, error_model="numpy", forceinline=True)
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


@njit(nogil=True, error_model="numpy", forceinline=True)
def _barycentric(setups, f, x, y):
    e0 = setups[f, 0] * x + setups[f, 1] * y + setups[f, 2]
    e1 = setups[f, 3] * x + setups[f, 4] * y + setups[f, 5]
    e2 = setups[f, 6] * x + setups[f, 7] * y + setups[f, 8]
    inverse = 1.0 / (e0 + e1 + e2)
    return e0 * inverse, e1 * inverse, e2 * inverse, inverse


@njit(nogil=True, error_model="numpy", forceinline=True)
def _shade(p, faces, materials, levels, texels, has_colors, view, shading, f, setups, x, y, extent, minor):
    """Premultiplied colour of face ``f`` at sample position ``(x, y)``.

    ``extent`` is the side, in samples, of the square that the look-up stands for.
    """
    i, j, k, material = faces[f, 0], faces[f, 1], faces[f, 2], faces[f, 3]
    b0, b1, b2, inverse = _barycentric(setups, f, x, y)
    red, green, blue = materials[material, FACTOR], materials[material, FACTOR + 1], materials[material, FACTOR + 2]
    alpha = materials[material, FACTOR + 3]
    if materials[material, LEVEL_COUNT] > 0.0:
        u0, u1, u2 = float(p[i, 6]), float(p[j, 6]), float(p[k, 6])
        v0, v1, v2 = float(p[i, 7]), float(p[j, 7]), float(p[k, 7])
        u, v = b0 * u0 + b1 * u1 + b2 * u2, b0 * v0 + b1 * v1 + b2 * v2
        scale = extent * inverse
        u0, u1, u2, v0, v1, v2 = u0 - u, u1 - u, u2 - u, v0 - v, v1 - v, v2 - v
        ux = (setups[f, 0] * u0 + setups[f, 3] * u1 + setups[f, 6] * u2) * scale
        uy = (setups[f, 1] * u0 + setups[f, 4] * u1 + setups[f, 7] * u2) * scale
        vx = (setups[f, 0] * v0 + setups[f, 3] * v1 + setups[f, 6] * v2) * scale
        vy = (setups[f, 1] * v0 + setups[f, 4] * v1 + setups[f, 7] * v2) * scale
        repeat, first = materials[material, REPEAT] != 0.0, int(materials[material, FIRST_LEVEL])
        last = first + int(materials[material, LEVEL_COUNT]) - 1
        u, v = _into_unit(u, repeat), _into_unit(v, repeat)
        if minor:
            red, green, blue, opacity = _sample_nearest_level(levels, texels, first, last, repeat, u, v, ux, uy, vx, vy)
        else:
            red, green, blue, opacity = _sample_filtered(levels, texels, first, last, repeat, u, v, ux, uy, vx, vy)
        alpha *= opacity
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


@njit(nogil=True, error_model="numpy", forceinline=True)
def _geometry(p, faces, view, f, setups, x, y):
    """Distance along the unit ray and the normal, turned to graze where it would face away."""
    b0, b1, b2, _ = _barycentric(setups, f, x, y)
    nx, ny, nz = _normal(p, view, faces[f, 0], faces[f, 1], faces[f, 2], b0, b1, b2)
    dx, dy, dz, stretch = _ray(view, x, y)
    away = nx * dx + ny * dy + nz * dz
    if away > 0.0:
        nx, ny, nz = nx - away * dx, ny - away * dy, nz - away * dz
        norm = np.sqrt(nx * nx + ny * ny + nz * nz)
        nx, ny, nz = nx / norm, ny / norm, nz / norm
    return stretch / (setups[f, 9] * x + setups[f, 10] * y + setups[f, 11]), nx, ny, nz


@njit(nogil=True, error_model="numpy")
def resolve(
    p,
    faces,
    materials,
    levels,
    texels,
    has_colors,
    view,
    setups,
    seen,
    rows,
    box,
    supersample,
    shading,
    order,
    rgba,
    depth,
    normal,
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
            x_base, y_base = column * supersample + 0.5, row * supersample + 0.5
            x, y = x_base + q % supersample, y_base + q // supersample
            distance, nx, ny, nz = _geometry(p, faces, view, f, setups, x, y)
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
                minor = MINOR_SHARE * same < count  # one of many faces: their average is filter enough
                remaining = float(same)
                for step in range(layers):
                    f = ids[step + 1 if step + 1 < layers else 0, q]  # blended from near to far, then solid
                    if f < 0:
                        continue
                    r, g, b, a = _shade(
                        p, faces, materials, levels, texels, has_colors, view, shading, f, setups, x, y, extent, minor
                    )
                    red, green, blue = red + remaining * r, green + remaining * g, blue + remaining * b
                    alpha += remaining * a
                    remaining *= 1.0 - a
                if uniform:
                    break
            rgba[row, column, 0], rgba[row, column, 1] = red / count, green / count
            rgba[row, column, 2], rgba[row, column, 3] = blue / count, alpha / count
