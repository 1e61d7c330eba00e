"""Visibility on the CPU: which triangle each sample sees. Numba kernels, exact and deterministic.

Edge functions are evaluated in homogeneous screen coordinates (Olano and Greer, "Triangle scan
conversion using 2D homogeneous coordinates", 1997): for camera-space corners ``V0 V1 V2`` and the
sample ``p = (x, y, 1)``, ``e0 = p . (V1 x V2)`` and so on. Normalised by their sum they are the
perspective-correct barycentric coordinates, and they stay right when a corner lies behind the eye, so
no triangle has to be cut in two at the near plane. A shared edge gives its two triangles exactly
opposite values (no fused multiply-add), so meshes have no cracks.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from threestudio_redream.assets.raster_numba_texture import surface_alpha
from threestudio_redream.assets.raster_pack import BLEND, CUTOFF, MODE, OPAQUE, SINGLE_SIDED

__all__ = ["bin_faces", "face_boxes", "face_setup", "project", "raster"]

_WIDE = 12  # samples; wider boxes compute where each row enters and leaves the triangle
_TINY = 1e-300
_SLIVER = 1e-10  # a triangle seen edge-on within rounding is not drawn


@njit(cache=True, nogil=True, error_model="numpy")
def project(attributes, view, near, begin, end, homogeneous, screen):
    """Homogeneous screen coordinates ``(x Z, y Z, Z)`` in samples, and ``(x, y)`` of what lies in front."""
    r0, r1, r2, u0, u1, u2, w0, w1, w2, eye0, eye1, eye2, focal, center_x, center_y = view
    for i in range(begin, end):
        px, py, pz = attributes[i, 0] - eye0, attributes[i, 1] - eye1, attributes[i, 2] - eye2
        right, up, z = px * r0 + py * r1 + pz * r2, px * u0 + py * u1 + pz * u2, -(px * w0 + py * w1 + pz * w2)
        homogeneous[i, 0] = focal * right + center_x * z
        homogeneous[i, 1] = -focal * up + center_y * z
        homogeneous[i, 2] = z
        if z > near:
            screen[i, 0] = homogeneous[i, 0] / z
            screen[i, 1] = homogeneous[i, 1] / z


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
def face_boxes(faces, homogeneous, screen, near, width, height, begin, end, boxes):
    """Inclusive sample boxes ``x0, y0, x1, y1`` of faces; ``x1 < x0`` for what touches no sample."""
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
        if low_x <= high_x and low_y <= high_y:
            boxes[f, 0], boxes[f, 1], boxes[f, 2], boxes[f, 3] = low_x, low_y, high_x, high_y


@njit(cache=True, nogil=True, error_model="numpy")
def bin_faces(boxes, y_low, n_bands, rows):
    """Faces per band of ``rows`` sample rows from ``y_low``, in face order: ``starts [n_bands + 1], entries``."""
    starts = np.zeros(n_bands + 1, np.int64)
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


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def face_setup(h, i, j, k):
    """Edge functions (three each for a, b, c), the plane of 1/Z, and the winding (0: not drawable)."""
    x0, y0, z0 = h[i, 0], h[i, 1], h[i, 2]
    x1, y1, z1 = h[j, 0], h[j, 1], h[j, 2]
    x2, y2, z2 = h[k, 0], h[k, 1], h[k, 2]
    ux, uy, uz = x1 - x0, y1 - y0, z1 - z0
    vx, vy, vz = x2 - x0, y2 - y0, z2 - z0
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    dx, dy, dz = x0 * nx, y0 * ny, z0 * nz
    det = dx + dy + dz
    sign = 1.0 if det > 0.0 else -1.0
    inverse = 1.0 / det
    if not abs(det) > _SLIVER * (abs(dx) + abs(dy) + abs(dz)):
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    return (
        sign * (y1 * z2 - z1 * y2),
        sign * (z1 * x2 - x1 * z2),
        sign * (x1 * y2 - y1 * x2),
        sign * (y2 * z0 - z2 * y0),
        sign * (z2 * x0 - x2 * z0),
        sign * (x2 * y0 - y2 * x0),
        sign * (y0 * z1 - z0 * y1),
        sign * (z0 * x1 - x0 * z1),
        sign * (x0 * y1 - y0 * x1),
        nx * inverse,
        ny * inverse,
        nz * inverse,
        sign,
    )


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _threshold(a, b):
    """0 where the triangle owns samples exactly on the edge, else the least positive number."""
    return 0.0 if a > 0.0 or (a == 0.0 and b > 0.0) else _TINY


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _span(a, r, t, first, last):
    """Columns of [first, last] where ``a (x + 0.5) + r >= t`` holds as computed; it is monotone in x."""
    if a > 0.0:
        if a * (first + 0.5) + r < t:
            guess = (t - r) / a - 0.5
            if guess > last + 2.0:
                return last + 1, last
            first = max(first, int(guess) - 1)
            while first <= last and a * (first + 0.5) + r < t:
                first += 1
    elif a < 0.0:
        if a * (last + 0.5) + r < t:
            guess = (t - r) / a - 0.5
            if guess < first - 2.0:
                return first, first - 1
            last = min(last, int(guess) + 2)
            while last >= first and a * (last + 0.5) + r < t:
                last -= 1
    elif r < t:
        return first, first - 1
    return first, last


@njit(cache=True, nogil=True, error_model="numpy")
def raster(
    attributes, faces, materials, levels, texels, h, entries, boxes, band, near, cull, blend, upper, nearest, seen
):
    """Draw faces into a band: ``nearest`` 1/Z and ``seen`` face per sample, both flat.

    ``band`` is (first sample row, one past the last, first column, columns). ``blend`` draws only
    blended faces, and only where they lie behind ``upper`` (the layer drawn before); otherwise only
    the others are drawn. Returns how many faces were visible when drawn.
    """
    row0, row1, x_low, width = band
    visible = 0
    far_limit = np.float32(1.0 / near)
    for entry in range(entries.shape[0]):
        f = entries[entry]
        material = faces[f, 3]
        mode = materials[material, MODE]
        if (mode == BLEND) != blend:
            continue
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        a0, b0, c0, a1, b1, c1, a2, b2, c2, az, bz, cz, sign = face_setup(h, i, j, k)
        if sign == 0.0 or (cull and sign > 0.0 and materials[material, SINGLE_SIDED] != 0.0):
            continue
        t0, t1, t2 = _threshold(a0, b0), _threshold(a1, b1), _threshold(a2, b2)
        wide = boxes[f, 2] - boxes[f, 0] > _WIDE
        for y in range(max(boxes[f, 1], row0), min(boxes[f, 3], row1 - 1) + 1):
            yc = y + 0.5
            r0, r1, r2, rz = b0 * yc + c0, b1 * yc + c1, b2 * yc + c2, bz * yc + cz
            first, last = boxes[f, 0], boxes[f, 2]
            base = (y - row0) * width - x_low
            if wide:
                first, last = _span(a0, r0, t0, first, last)
                first, last = _span(a1, r1, t1, first, last)
                first, last = _span(a2, r2, t2, first, last)
            if mode == OPAQUE and wide:
                for x in range(first, last + 1):
                    iz = np.float32(az * (x + 0.5) + rz)
                    index = base + x
                    better = (iz > nearest[index]) & (iz < far_limit)
                    nearest[index] = iz if better else nearest[index]
                    seen[index] = f if better else seen[index]
                continue
            for x in range(first, last + 1):
                xc = x + 0.5
                e0, e1, e2 = a0 * xc + r0, a1 * xc + r1, a2 * xc + r2
                iz = np.float32(az * xc + rz)
                index = base + x
                # One branch, not five: which samples are inside cannot be predicted.
                if not ((e0 >= t0) & (e1 >= t1) & (e2 >= t2) & (iz > nearest[index]) & (iz < far_limit)):
                    continue
                if mode != OPAQUE:
                    if blend and iz >= upper[index]:
                        continue
                    total = e0 + e1 + e2
                    alpha = surface_alpha(
                        attributes, materials, levels, texels, material, i, j, k, e0 / total, e1 / total, e2 / total
                    )
                    if alpha <= 0.0 or (not blend and alpha < materials[material, CUTOFF]):
                        continue
                nearest[index] = iz
                seen[index] = f
                visible += 1
    return visible
