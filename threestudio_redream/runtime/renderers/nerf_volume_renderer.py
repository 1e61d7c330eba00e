"""``nerf-volume-renderer``: images of a density field by volume rendering."""

from __future__ import annotations

import functools
import logging
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from threestudio_redream.errors import ConfigError
from threestudio_redream.kernels.volume import OccupancyGrid, importance_samples, ray_aabb_intersect
from threestudio_redream.runtime.chunking import chunk_batch
from threestudio_redream.runtime.registry import register
from threestudio_redream.runtime.renderers.base import VolumeRenderer
from threestudio_redream.runtime.renderers.compositing import composite

__all__ = ["NeRFVolumeRenderer"]

log = logging.getLogger("pytorch_lightning")

GRID_RESOLUTION = 32
VISIBLE_ALPHA = 0.01
PER_RAY = ("comp_rgb_fg", "opacity", "depth", "z_variance", "comp_normal")

Samples = tuple[Tensor, Tensor, Tensor]


@register("nerf-volume-renderer")
class NeRFVolumeRenderer(VolumeRenderer):
    """Samples rays where the occupancy grid says so, asks geometry and material, and composites.

    Whether samples are jittered (``randomized``) follows the ``training`` flag at every call, so it
    survives trainers that set the flag without calling ``train()``.

    Keys:
        randomized: jitter the samples in training.
        num_samples_per_ray: sets the step: ``2 sqrt(3) radius / num_samples_per_ray``.
        eval_chunk_size: points per evaluation of the field outside training.
        near_plane, far_plane: distances in world units.
        return_comp_normal: make normals and their image, in training as well.
        return_normal_perturb: in training, normals at points moved by noise (``normal_perturb``).
        estimator: ``occgrid``, or ``importance`` (even samples, then more where the density is).
        grid_prune: use the grid. Until its first update it lets everything through.
        grid_update_interval, grid_decay: the grid is refreshed every so many steps; a cell that is not
            seen dense again loses the part ``1 - grid_decay`` of its value. The defaults are upstream's
            fixed values; a lower decay prunes sooner, fit for targets that do not change.
        prune_alpha_threshold: evaluate the density once without gradients to drop samples that
            cannot be seen; saves time and memory where the field is mostly opaque surfaces.
        num_samples_per_ray_importance: even samples of the estimator ``importance``; it then takes
            ``num_samples_per_ray`` where the density is.
        num_samples_per_ray_proposal, proposal_network_config, prop_optimizer_config, prop_scheduler_config: accepted
            from upstream's configurations; without effect here.
    """

    @dataclass
    class Config(VolumeRenderer.Config):
        num_samples_per_ray: int = 512
        eval_chunk_size: int = 160000
        randomized: bool = True
        near_plane: float = 0.0
        far_plane: float = 1e10
        return_comp_normal: bool = False
        return_normal_perturb: bool = False
        estimator: str = "occgrid"
        grid_prune: bool = True
        grid_update_interval: int = 16
        grid_decay: float = 0.95
        prune_alpha_threshold: bool = True
        proposal_network_config: dict | None = None
        prop_optimizer_config: dict | None = None
        prop_scheduler_config: dict | None = None
        num_samples_per_ray_proposal: int = 64
        num_samples_per_ray_importance: int = 64

    cfg: Config

    def configure(self, geometry: Any, material: Any, background: Any) -> None:
        super().configure(geometry, material, background)
        if self.cfg.estimator not in ("occgrid", "importance"):
            raise ConfigError(
                "This sampling estimator is not available",
                received=self.cfg.estimator,
                fix="Use occgrid or importance.",
            )
        if self.cfg.num_samples_per_ray < 1:
            raise ConfigError(
                "num_samples_per_ray must be 1 or more", received=self.cfg.num_samples_per_ray, fix="256 is usual."
            )
        self.render_step_size = 2.0 * math.sqrt(3.0) * self.cfg.radius / self.cfg.num_samples_per_ray
        self.estimator: OccupancyGrid | None = None
        if self.cfg.estimator == "occgrid":
            self.estimator = OccupancyGrid(self.bbox.flatten(), resolution=GRID_RESOLUTION, levels=1)
            self.estimator.binaries.fill_(True)  # unknown is not empty
            if not self.cfg.grid_prune:
                self.estimator.occs.fill_(1.0)
        self._grid_step = -1
        self._empty_renders = 0

    @property
    def randomized(self) -> bool:
        """Whether samples are jittered now."""
        return self.training and self.cfg.randomized

    def forward(
        self,
        rays_o: Tensor,
        rays_d: Tensor,
        light_positions: Tensor | None = None,
        bg_color: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """Render rays.

        Args:
            rays_o, rays_d: ``[B, H, W, 3]`` float, world-space origins and unit directions.
            light_positions: ``[B, 3]``, world units; None puts the light at the camera.
            bg_color: ``[B, C]`` or ``[B, H, W, C]``, replaces the background behind the object.
            kwargs: the rest of the batch; goes on to the material.

        Returns:
            Always ``comp_rgb``, ``comp_rgb_fg`` (premultiplied), ``comp_rgb_bg`` ``[B, H, W, C]``; ``opacity``,
            ``depth``, ``z_variance`` ``[B, H, W, 1]``. ``comp_normal`` ``[B, H, W, 3]`` if there are normals (in
            training only with ``return_comp_normal``). In training also, per sample, ``weights``,
            ``t_points``, ``t_intervals`` ``[M, 1]``, ``t_dirs``, ``points`` ``[M, 3]``, ``ray_indices`` ``[M]`` and
            what the geometry returned. See :func:`.compositing.composite` for their meaning.
        """
        batch, height, width = rays_o.shape[:3]
        origins, directions = rays_o.reshape(-1, 3), rays_d.reshape(-1, 3)
        lights = origins
        if light_positions is not None:
            lights = light_positions.reshape(-1, 1, 3).expand(batch, height * width, 3).reshape(-1, 3)
        render = functools.partial(self._render_rays, batch_extras=kwargs)
        if self.training:
            flat = render(origins, directions, lights)
        else:
            # Bounds the samples that exist at once; the field is evaluated in chunks of its own.
            rays_at_once = max(8 * self.cfg.eval_chunk_size // self.cfg.num_samples_per_ray, 1)
            flat = chunk_batch(render, rays_at_once, origins, directions, lights)

        output = {key: value.view(batch, height, width, -1) if key in PER_RAY else value for key, value in flat.items()}
        background = self.background(dirs=rays_d)
        behind = background if bg_color is None else _per_pixel(bg_color, output["comp_rgb_fg"])
        return {
            "comp_rgb": output["comp_rgb_fg"] + behind * (1.0 - output["opacity"]),
            "comp_rgb_bg": background,
            **output,
        }

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        if self.estimator is None or not self.cfg.grid_prune or not self.training or on_load_weights:
            return
        if global_step == self._grid_step:  # the clock may come by twice
            return
        self._grid_step = global_step
        # 1 - exp(-density * step) is about density * step where it matters, near the threshold
        self.estimator.update_every_n_steps(
            step=global_step,
            occ_eval_fn=lambda points: self.geometry.forward_density(points) * self.render_step_size,
            ema_decay=self.cfg.grid_decay,
            n=self.cfg.grid_update_interval,
        )

    def _render_rays(
        self, rays_o: Tensor, rays_d: Tensor, lights: Tensor, *, batch_extras: dict[str, Any]
    ) -> dict[str, Tensor]:
        """Everything but the background for rays ``[R, 3]``: per-ray tensors, and per-sample ones in training."""
        ray_indices, t_starts, t_ends = self._sample(rays_o, rays_d)
        if ray_indices.numel() == 0 and self.training:
            self._warn_empty()
        t_dirs = rays_d[ray_indices]
        t_points = ((t_starts + t_ends) * 0.5)[:, None]
        positions = torch.addcmul(rays_o[ray_indices], t_dirs, t_points)

        needs_normal = self.material.requires_normal or self.cfg.return_comp_normal
        perturb = self.training and self.cfg.return_normal_perturb
        chunk = 0 if self.training else self.cfg.eval_chunk_size
        geo_out = chunk_batch(self.geometry, chunk, positions, output_normal=needs_normal or perturb)
        color = chunk_batch(
            functools.partial(self.material, **batch_extras),  # what the geometry says wins over the batch
            chunk,
            viewdirs=t_dirs,
            positions=positions,
            light_positions=lights[ray_indices],
            **geo_out,
        )
        with_image = "normal" in geo_out and (self.cfg.return_comp_normal or not self.training)
        composed = composite(
            t_starts,
            t_ends,
            ray_indices,
            rays_o.shape[0],
            geo_out["density"][:, 0],
            color,
            geo_out["normal"] if with_image else None,
        )
        if not self.training:
            composed.pop("weights")
            return composed
        if perturb:
            moved = positions + 1e-2 * torch.randn_like(positions)
            composed["normal_perturb"] = self.geometry(moved, output_normal=True)["normal"]
        return {
            **geo_out,
            **composed,
            "t_points": t_points,
            "t_intervals": (t_ends - t_starts)[:, None],
            "t_dirs": t_dirs,
            "ray_indices": ray_indices,
            "points": positions,
        }

    @torch.no_grad()
    def _sample(self, rays_o: Tensor, rays_d: Tensor) -> Samples:
        def density(t_starts: Tensor, t_ends: Tensor, ray_indices: Tensor) -> Tensor:
            middles = ((t_starts + t_ends) * 0.5)[:, None]
            points = torch.addcmul(rays_o[ray_indices], rays_d[ray_indices], middles)
            chunk = 0 if self.training else self.cfg.eval_chunk_size
            return chunk_batch(self.geometry.forward_density, chunk, points)[:, 0]

        near, far = self.cfg.near_plane, self.cfg.far_plane
        if self.estimator is None:
            t_min, t_max, _ = ray_aabb_intersect(rays_o, rays_d, self.bbox.flatten(), near, far)
            return importance_samples(
                t_min,
                t_max,
                density,
                n_proposal=self.cfg.num_samples_per_ray_importance,
                n_fine=self.cfg.num_samples_per_ray,
                stratified=self.randomized,
            )
        prune = self.cfg.grid_prune and self.cfg.prune_alpha_threshold
        return self.estimator.sampling(
            rays_o,
            rays_d,
            render_step_size=self.render_step_size,
            sigma_fn=density if prune else None,
            near_plane=near,
            far_plane=far,
            stratified=self.randomized,
            alpha_thre=VISIBLE_ALPHA if prune else 0.0,
        )

    def _warn_empty(self) -> None:
        """Warn at the 1st, 10th, 100th, ... empty render: often enough to notice, seldom enough to read on."""
        self._empty_renders += 1
        if math.log10(self._empty_renders).is_integer():
            log.warning(
                "Nothing to render: no ray meets an occupied cell (%d times so far). The image is background only; "
                "raise geometry.density_bias, lower the loss on opacity, or look where the camera points",
                self._empty_renders,
            )


def _per_pixel(color: Tensor, image: Tensor) -> Tensor:
    """A background colour ``[B, C]`` or ``[B, H, W, C]`` in a shape that combines with ``image``."""
    if color.shape == (image.shape[0], image.shape[-1]):
        return color[:, None, None, :]
    if color.shape == image.shape:
        return color
    raise ConfigError(
        "bg_color does not fit the image",
        received=tuple(color.shape),
        fix=f"Pass {(image.shape[0], image.shape[-1])} or {tuple(image.shape)}.",
    )
