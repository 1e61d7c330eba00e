"""The occupancy grid: which cells of space are worth sampling (Instant NGP, Mueller et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from threestudio_redream.errors import ConfigError
from threestudio_redream.kernels.volume.march import march_rays
from threestudio_redream.kernels.volume.random import randint, uniform
from threestudio_redream.kernels.volume.weights import render_weight_from_density

__all__ = ["OccupancyGrid"]

CELLS_AT_ONCE = 1 << 18  # bounds the memory of one evaluation of the field

SigmaFn = Callable[[Tensor, Tensor, Tensor], Tensor]


class OccupancyGrid(nn.Module):
    """A running estimate of opacity per cell, refreshed from the field during training.

    Names and shapes of the buffers are those of nerfacc's ``OccGridEstimator``, so checkpoints fit
    both: ``resolution`` ``[3]`` int32, ``aabbs`` ``[L, 6]``, ``occs`` ``[L * X * Y * Z]`` float32,
    ``binaries`` ``[L, X, Y, Z]`` bool; not saved: ``grid_coords`` ``[X * Y * Z, 3]`` and
    ``grid_indices`` ``[X * Y * Z]`` int64. A fresh grid is empty: nothing is sampled before the
    first update (fill ``binaries`` with True to sample everywhere).

    Convention:
        Cell ``(i, j, k)`` of the box ``(min, max)`` spans, along x, ``min + i * (max - min) / X`` to
        ``min + (i + 1) * (max - min) / X``. Box -1 to 1 at resolution 4: cell 3 spans 0.5 to 1.

    Args:
        roi_aabb: ``[6]`` floats, box in world units: min x, min y, min z, max x, max y, max z.
        resolution: cells along each axis, one number or three.
        levels: nested grids around the same centre; each is twice as large as the one before.

    Raises:
        ConfigError: if the box is empty or not finite, or a count is below 1.
    """

    resolution: Tensor
    aabbs: Tensor
    occs: Tensor
    binaries: Tensor
    grid_coords: Tensor
    grid_indices: Tensor

    def __init__(
        self, roi_aabb: Tensor | Sequence[float], resolution: int | Sequence[int] | Tensor = 32, levels: int = 1
    ) -> None:
        super().__init__()
        box = torch.as_tensor(roi_aabb, dtype=torch.float32).flatten()
        if box.shape != (6,) or not bool(torch.isfinite(box).all()) or not bool((box[3:] > box[:3]).all()):
            raise ConfigError(
                "The box of an occupancy grid needs 6 finite numbers with min < max on each axis",
                received=box.tolist(),
                fix="Pass [min x, min y, min z, max x, max y, max z].",
            )
        cells = torch.as_tensor(resolution, dtype=torch.int32).expand(3).clone()
        if int(cells.min()) < 1 or levels < 1:
            raise ConfigError(
                "An occupancy grid needs at least one cell per axis and one level",
                received={"resolution": cells.tolist(), "levels": levels},
                fix="Use a resolution such as 32 and 1 level.",
            )
        centre, half = (box[:3] + box[3:]) / 2, (box[3:] - box[:3]) / 2
        boxes = [torch.cat([centre - half * 2**i, centre + half * 2**i]) for i in range(levels)]
        boxes[0] = box  # exactly, without rounding by way of the centre
        x, y, z = cells.tolist()
        self.levels, self.cells_per_lvl = levels, x * y * z
        self.register_buffer("resolution", cells)
        self.register_buffer("aabbs", torch.stack(boxes))
        self.register_buffer("occs", torch.zeros(levels * self.cells_per_lvl))
        self.register_buffer("binaries", torch.zeros(levels, x, y, z, dtype=torch.bool))
        axes = torch.meshgrid(torch.arange(x), torch.arange(y), torch.arange(z), indexing="ij")
        self.register_buffer("grid_coords", torch.stack(axes, dim=-1).reshape(-1, 3), persistent=False)
        self.register_buffer("grid_indices", torch.arange(self.cells_per_lvl), persistent=False)

    @torch.no_grad()
    def update_every_n_steps(
        self,
        step: int,
        occ_eval_fn: Callable[[Tensor], Tensor],
        occ_thre: float = 0.01,
        ema_decay: float = 0.95,
        warmup_steps: int = 256,
        n: int = 16,
        generator: torch.Generator | None = None,
    ) -> bool:
        """Refresh the grid if ``step`` is a multiple of ``n``.

        Until ``warmup_steps`` every cell is evaluated, at one random point each; afterwards a
        quarter of the cells at random and as many of the occupied ones. An evaluated cell becomes
        ``max(ema_decay * old, new)``; cells above ``min(mean of all, occ_thre)`` count as occupied.

        Args:
            step: training step, from 0.
            occ_eval_fn: points ``[P, 3]`` in world units to opacity >= 0 of one step along a ray
                (about density times step length), ``[P]`` or ``[P, 1]``. NaN counts as 0.
            occ_thre, ema_decay, warmup_steps, n: see above.
            generator: source of the random numbers; the global one if None. A fixed seed gives a
                fixed grid.

        Returns:
            Whether the grid was refreshed.
        """
        if step % n != 0:
            return False
        for level in range(self.levels):
            cells = self._all_cells(level) if step < warmup_steps else self._some_cells(level, generator)
            jitter = uniform((cells.shape[0], 3), self.occs, generator)
            low, high = self.aabbs[level, :3], self.aabbs[level, 3:]
            points = low + (self.grid_coords[cells] + jitter) / self.resolution * (high - low)
            values = [occ_eval_fn(part).reshape(-1).to(self.occs) for part in points.split(CELLS_AT_ONCE)]
            fresh = torch.nan_to_num(torch.cat(values), nan=0.0).clamp(min=0) if values else self.occs.new_zeros(0)
            # Cells are drawn with repetition: take the largest, which no order of writing can change.
            target = self.occs.view(self.levels, -1)[level]
            best = torch.full_like(target, -1.0).scatter_reduce(0, cells, fresh, "amax")
            seen = best >= 0
            target.copy_(torch.where(seen, torch.maximum(target * ema_decay, best), target))
        valid = self.occs[self.occs >= 0]
        threshold = min(float(valid.mean()), occ_thre) if valid.numel() else occ_thre
        self.binaries.copy_((self.occs > threshold).view_as(self.binaries))
        return True

    @torch.no_grad()
    def sampling(
        self,
        rays_o: Tensor,
        rays_d: Tensor,
        *,
        render_step_size: float,
        sigma_fn: SigmaFn | None = None,
        near_plane: float = 0.0,
        far_plane: float = 1e10,
        stratified: bool = False,
        alpha_thre: float = 0.0,
        early_stop_eps: float = 1e-4,
        generator: torch.Generator | None = None,
        backend: str = "auto",
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Samples in occupied cells; see :func:`~threestudio_redream.kernels.volume.march.march_rays`.

        Args:
            rays_o, rays_d: ``[N, 3]`` float, origins and unit directions.
            render_step_size: length of a sample in world units.
            sigma_fn: ``(t_starts, t_ends, ray_indices)`` to densities ``[M]``. If given, samples that
                cannot be seen are dropped: transmittance under ``early_stop_eps`` or alpha under
                ``min(alpha_thre, mean of the grid)``.
            near_plane, far_plane: range of distances in which samples may lie.
            stratified: shift the samples of each ray by one random part of a step (for training).
            generator: source of that shift; the global one if None.

        Returns:
            ``ray_indices`` ``[M]`` int64 sorted, ``t_starts`` ``[M]``, ``t_ends`` ``[M]``.

        Raises:
            ConfigError: see ``march_rays``; also if ``sigma_fn`` returns the wrong number of values.
        """
        t_first = torch.full_like(rays_o[:, 0], near_plane, dtype=torch.promote_types(rays_o.dtype, torch.float32))
        if stratified:
            t_first = t_first + uniform((rays_o.shape[0],), t_first, generator) * render_step_size
        rays, starts, ends = march_rays(
            rays_o,
            rays_d,
            self.binaries,
            self.aabbs,
            t_first=t_first,
            far_plane=far_plane,
            step_size=render_step_size,
            backend=backend,
        )
        if sigma_fn is None or rays.numel() == 0 or (alpha_thre <= 0 and early_stop_eps <= 0):
            return rays, starts, ends
        sigmas = sigma_fn(starts, ends, rays).reshape(-1)
        _, trans, alphas = render_weight_from_density(starts, ends, sigmas, rays, rays_o.shape[0], backend=backend)
        visible = (trans >= early_stop_eps) & (alphas >= min(alpha_thre, float(self.occs.mean())))
        return rays[visible], starts[visible], ends[visible]

    def _all_cells(self, level: int) -> Tensor:
        """Every cell but those marked below 0, which upstream uses for cells that no camera sees."""
        return self.grid_indices[self.occs.view(self.levels, -1)[level] >= 0]

    def _some_cells(self, level: int, generator: torch.Generator | None) -> Tensor:
        count = max(self.cells_per_lvl // 4, 1)
        occs = self.occs.view(self.levels, -1)[level]
        anywhere = randint(self.cells_per_lvl, count, occs.device, generator)
        occupied = self.binaries[level].flatten().nonzero()[:, 0]
        if occupied.shape[0] > count:
            occupied = occupied[randint(occupied.shape[0], count, occs.device, generator)]
        return torch.cat([anywhere[occs[anywhere] >= 0], occupied])
