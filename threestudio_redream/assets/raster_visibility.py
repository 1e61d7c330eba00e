"""Visibility on the CPU: which triangle each sample sees. Numba kernels, exact and deterministic.

Edge functions are evaluated in homogeneous screen coordinates (Olano and Greer, "Triangle scan
conversion using 2D homogeneous coordinates", 1997): for camera-space corners ``V0 V1 V2`` and the
sample ``p = (x, y, 1)``, ``e0 = p . (V1 x V2)`` and so on. Normalised by their sum they are the
perspective-correct barycentric coordinates, and they stay right when a corner lies behind the eye, so
no triangle has to be cut in two at the near plane. A shared edge gives its two triangles exactly
opposite values (no fused multiply-add), so meshes have no cracks.

A view is 15 floats: right, up, backward, centre, focal length in samples, image centre in samples.
The numpy reference is :mod:`.rasteriser_numpy`.
"""

from __future__ import annotations

import numpy as np

from threestudio_redream.kernels.jit import njit

__all__ = ["bin_faces", "project", "raster", "set_up_faces"]

# Copies of the constants in raster_pack: numba's disk cache watches this file only, so a kernel
# compiled with a constant from elsewhere would outlive a change of it.
OPAQUE, BLEND = 0, 2
MODE, CUTOFF, SINGLE_SIDED, REPEAT, FIRST_LEVEL, LEVEL_COUNT, FACTOR = 0, 1, 2, 3, 4, 5, 6

_WIDE = 48  # samples; wider boxes compute where each row enters and leaves the triangle
_TINY = 1e-300  # the least value that counts as inside on an edge the triangle does not own
_SLIVER = 1e-10  # a triangle seen edge-on within rounding is not drawn


@njit(nogil=True, error_model="numpy")
def project(attributes, view, near, begin, end, homogeneous, screen):
    """Homogeneous screen coordinates ``(x Z, y Z, Z)`` in samples, and ``(x, y)`` of what lies in front."""
    r0, r1, r2, u0, u1, u2, w0, w1, w2 = view[0], view[1], view[2], view[3], view[4], view[5], view[6], view[7], view[8]
    eye0, eye1, eye2, focal, center_x, center_y = view[9], view[10], view[11], view[12], view[13], view[14]
    for i in range(begin, end):
        px, py, pz = attributes[i, 0] - eye0, attributes[i, 1] - eye1, attributes[i, 2] - eye2
        right, up, z = px * r0 + py * r1 + pz * r2, px * u0 + py * u1 + pz * u2, -(px * w0 + py * w1 + pz * w2)
        homogeneous[i, 0] = focal * right + center_x * z
        homogeneous[i, 1] = -focal * up + center_y * z
        homogeneous[i, 2] = z
        if z > near:
            screen[i, 0] = homogeneous[i, 0] / z
            screen[i, 1] = homogeneous[i, 1] / z


@njit(nogil=True, error_model="numpy")
def _crossing_box(homogeneous, corners, near):
    """Screen box of the part of a triangle that lies beyond the near plane."""
    low_x, low_y, high_x, high_y = np.inf, np.inf, -np.inf, -np.inf
    for k in range(3):
        i, j = corners[k], corners[(k + 1) % 3]
        zi, zj = homogeneous[i, 2], homogeneous[j, 2]
        for end in range(2):
            if end == 0:
                if zi < near:
                    continue
                x, y = homogeneous[i, 0] / zi, homogeneous[i, 1] / zi
            else:
                if (zi < near) == (zj < near):
                    continue
                t = (near - zi) / (zj - zi)
                x = (homogeneous[i, 0] + t * (homogeneous[j, 0] - homogeneous[i, 0])) / near
                y = (homogeneous[i, 1] + t * (homogeneous[j, 1] - homogeneous[i, 1])) / near
            low_x, high_x = min(low_x, x), max(high_x, x)
            low_y, high_y = min(low_y, y), max(high_y, y)
    return low_x, low_y, high_x, high_y


@njit(nogil=True, error_model="numpy", forceinline=True)
def _set_up(h, i, j, k, setups, f):
    """Edge functions (a, b, c of each), the plane of 1/Z and the winding; False for what is edge-on."""
    x0, y0, z0 = h[i, 0], h[i, 1], h[i, 2]
    x1, y1, z1 = h[j, 0], h[j, 1], h[j, 2]
    x2, y2, z2 = h[k, 0], h[k, 1], h[k, 2]
    ux, uy, uz = x1 - x0, y1 - y0, z1 - z0
    vx, vy, vz = x2 - x0, y2 - y0, z2 - z0
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    dx, dy, dz = x0 * nx, y0 * ny, z0 * nz
    det = dx + dy + dz
    if not abs(det) > _SLIVER * (abs(dx) + abs(dy) + abs(dz)):
        return False
    sign, inverse = 1.0 if det > 0.0 else -1.0, 1.0 / det
    setups[f, 0], setups[f, 1], setups[f, 2] = (
        sign * (y1 * z2 - z1 * y2),
        sign * (z1 * x2 - x1 * z2),
        sign * (x1 * y2 - y1 * x2),
    )
    setups[f, 3], setups[f, 4], setups[f, 5] = (
        sign * (y2 * z0 - z2 * y0),
        sign * (z2 * x0 - x2 * z0),
        sign * (x2 * y0 - y2 * x0),
    )
    setups[f, 6], setups[f, 7], setups[f, 8] = (
        sign * (y0 * z1 - z0 * y1),
        sign * (z0 * x1 - x0 * z1),
        sign * (x0 * y1 - y0 * x1),
    )
    setups[f, 9], setups[f, 10], setups[f, 11], setups[f, 12] = nx * inverse, ny * inverse, nz * inverse, sign
    return True


@njit(nogil=True, error_model="numpy")
def set_up_faces(faces, homogeneous, screen, near, width, height, begin, end, boxes, setups):
    """Inclusive sample boxes ``x0, y0, x1, y1`` of faces, and the edge functions of those in view.

    ``x1 < x0`` marks a face that touches no sample; its row of ``setups [F, 13]`` is left alone.
    Returns the box around all of these boxes.
    """
    left, top, right, bottom = 1 << 30, 1 << 30, -1, -1
    for f in range(begin, end):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        zi, zj, zk = homogeneous[i, 2], homogeneous[j, 2], homogeneous[k, 2]
        boxes[f, 0], boxes[f, 2] = 0, -1
        if zi > near and zj > near and zk > near:
            low_x = min(screen[i, 0], screen[j, 0], screen[k, 0])
            high_x = max(screen[i, 0], screen[j, 0], screen[k, 0])
            low_y = min(screen[i, 1], screen[j, 1], screen[k, 1])
            high_y = max(screen[i, 1], screen[j, 1], screen[k, 1])
        elif zi > near or zj > near or zk > near:
            low_x, low_y, high_x, high_y = _crossing_box(homogeneous, (i, j, k), near)
        else:
            continue
        # The margin covers the rounding of the projection; the edge functions decide exactly.
        low_x, high_x = max(np.ceil(low_x - 0.500001), 0.0), min(np.floor(high_x - 0.499999), width - 1.0)
        low_y, high_y = max(np.ceil(low_y - 0.500001), 0.0), min(np.floor(high_y - 0.499999), height - 1.0)
        if low_x <= high_x and low_y <= high_y and _set_up(homogeneous, i, j, k, setups, f):
            x0, y0, x1, y1 = int(low_x), int(low_y), int(high_x), int(high_y)
            boxes[f, 0], boxes[f, 1], boxes[f, 2], boxes[f, 3] = x0, y0, x1, y1
            left, top, right, bottom = min(left, x0), min(top, y0), max(right, x1), max(bottom, y1)
    return left, top, right, bottom


@njit(nogil=True, error_model="numpy")
def bin_faces(boxes, y_low, n_bands, rows):
    """Faces per band of ``rows`` sample rows from ``y_low``, in face order: ``starts [n_bands + 1], entries``."""
    starts = np.zeros(n_bands + 1, np.int64)
    if n_bands == 1:
        entries, found = np.zeros(boxes.shape[0], np.int32), 0
        for f in range(boxes.shape[0]):
            if boxes[f, 0] <= boxes[f, 2]:
                entries[found] = f
                found += 1
        starts[1] = found
        return starts, entries
    for f in range(boxes.shape[0]):
        if boxes[f, 0] <= boxes[f, 2]:
            for band in range((boxes[f, 1] - y_low) // rows, (boxes[f, 3] - y_low) // rows + 1):
                starts[band + 1] += 1
    for band in range(n_bands):
        starts[band + 1] += starts[band]
    entries = np.zeros(starts[n_bands], np.int32)
    cursor = starts[:-1].copy()
    for f in range(boxes.shape[0]):
        if boxes[f, 0] <= boxes[f, 2]:
            for band in range((boxes[f, 1] - y_low) // rows, (boxes[f, 3] - y_low) // rows + 1):
                entries[cursor[band]] = f
                cursor[band] += 1
    return starts, entries


@njit(nogil=True, error_model="numpy", forceinline=True)
def _threshold(a, b):
    """0 where the triangle owns samples exactly on the edge, else the least positive number."""
    return 0.0 if a > 0.0 or (a == 0.0 and b > 0.0) else _TINY


@njit(nogil=True, error_model="numpy", forceinline=True)
def _narrow(a, r, low, high):
    """The columns of [low, high] where ``a (x + 0.5) + r`` may be positive, with one to spare."""
    if a > 0.0:
        low = max(low, -r / a - 2.0)
    elif a < 0.0:
        high = min(high, -r / a + 1.0)
    return low, high


@njit(nogil=True, error_model="numpy", forceinline=True)
def _alpha_pair(coordinate, size, repeat):
    position = coordinate * size - 0.5
    base = np.floor(position)
    first, second = int(base), int(base) + 1
    if repeat:
        return first % size, second % size, position - base
    return min(max(first, 0), size - 1), min(max(second, 0), size - 1), position - base


@njit(nogil=True, error_model="numpy")
def _surface_alpha(attributes, materials, levels, texels, material, i, j, k, b0, b1, b2):
    """Unfiltered alpha of a surface point: factor times first mip level times vertex colour."""
    alpha = materials[material, FACTOR + 3] * (b0 * attributes[i, 11] + b1 * attributes[j, 11] + b2 * attributes[k, 11])
    if materials[material, LEVEL_COUNT] > 0.0:
        repeat = materials[material, REPEAT] != 0.0
        u = b0 * attributes[i, 6] + b1 * attributes[j, 6] + b2 * attributes[k, 6]
        v = b0 * attributes[i, 7] + b1 * attributes[j, 7] + b2 * attributes[k, 7]
        u, v = (u - np.floor(u), v - np.floor(v)) if repeat else (min(max(u, 0.0), 1.0), min(max(v, 0.0), 1.0))
        level = int(materials[material, FIRST_LEVEL])
        offset, width, height = levels[level, 0], levels[level, 1], levels[level, 2]
        x0, x1, wx = _alpha_pair(u, width, repeat)
        y0, y1, wy = _alpha_pair(v, height, repeat)
        upper = (1.0 - wx) * (texels[offset + y0 * width + x0] >> 24) + wx * (texels[offset + y0 * width + x1] >> 24)
        lower = (1.0 - wx) * (texels[offset + y1 * width + x0] >> 24) + wx * (texels[offset + y1 * width + x1] >> 24)
        alpha *= ((1.0 - wy) * upper + wy * lower) / 255.0
    return alpha


@njit(nogil=True, error_model="numpy")
def raster(
    attributes, faces, materials, levels, texels, entries, boxes, setups, band, near, cull, blend, upper, nearest, seen
):
    """Draw faces into a band: ``nearest`` 1/Z and ``seen`` face per sample, both flat.

    ``band`` is (first sample row, one past the last, first column, columns). ``blend`` draws only
    blended faces, and only where they lie behind ``upper`` (the layer drawn before); otherwise only
    the others are drawn. Returns how many transparent samples were drawn.
    """
    row0, row1, x_low, width = band
    visible = 0
    far_limit = np.float32(1.0 / near)
    for entry in range(entries.shape[0]):
        f = np.int32(entries[entry])
        material = faces[f, 3]
        mode = materials[material, MODE]
        if (mode == BLEND) != blend:
            continue
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        if cull and setups[f, 12] > 0.0 and materials[material, SINGLE_SIDED] != 0.0:
            continue
        a0, b0, c0, a1, b1, c1 = setups[f, 0], setups[f, 1], setups[f, 2], setups[f, 3], setups[f, 4], setups[f, 5]
        a2, b2, c2, az, bz, cz = setups[f, 6], setups[f, 7], setups[f, 8], setups[f, 9], setups[f, 10], setups[f, 11]
        t0, t1, t2 = _threshold(a0, b0), _threshold(a1, b1), _threshold(a2, b2)
        wide = boxes[f, 2] - boxes[f, 0] > _WIDE
        for y in range(max(boxes[f, 1], row0), min(boxes[f, 3], row1 - 1) + 1):
            yc = y + 0.5
            r0, r1, r2, rz = b0 * yc + c0, b1 * yc + c1, b2 * yc + c2, bz * yc + cz
            first, last = boxes[f, 0], boxes[f, 2]
            if wide:
                low, high = _narrow(a0, r0, float(first), float(last))
                low, high = _narrow(a1, r1, low, high)
                low, high = _narrow(a2, r2, low, high)
                if low > high:
                    continue
                first, last = int(low), int(high)
            base = (y - row0) * width - x_low
            # Unsigned indices and a single branch let the compiler use vector instructions.
            if mode == OPAQUE:
                for index in range(np.uint64(base + first), np.uint64(base + last + 1)):
                    xc = (np.int64(index) - base) + 0.5
                    e0, e1, e2 = a0 * xc + r0, a1 * xc + r1, a2 * xc + r2
                    iz = np.float32(az * xc + rz)
                    if (iz > nearest[index]) & (iz < far_limit) & (e0 >= t0) & (e1 >= t1) & (e2 >= t2):
                        nearest[index] = iz
                        seen[index] = f
                continue
            for x in range(first, last + 1):
                xc = x + 0.5
                e0, e1, e2 = a0 * xc + r0, a1 * xc + r1, a2 * xc + r2
                iz = np.float32(az * xc + rz)
                index = base + x
                if not ((iz > nearest[index]) & (iz < far_limit) & (e0 >= t0) & (e1 >= t1) & (e2 >= t2)):
                    continue
                if blend and iz >= upper[index]:
                    continue
                scale = 1.0 / (e0 + e1 + e2)
                alpha = _surface_alpha(
                    attributes, materials, levels, texels, material, i, j, k, e0 * scale, e1 * scale, e2 * scale
                )
                if alpha > 0.0 and (blend or alpha >= materials[material, CUTOFF]):
                    nearest[index] = iz
                    seen[index] = f
                    visible += 1
    return visible
