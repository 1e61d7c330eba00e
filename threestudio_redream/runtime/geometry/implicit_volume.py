"""``implicit-volume``: a density field with features, an encoding and small networks (the NeRF of threestudio)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from threestudio_redream.errors import ConfigError
from threestudio_redream.runtime.activations import get_activation
from threestudio_redream.runtime.geometry.base import BaseGeometry, BaseImplicitGeometry, contract_to_unisphere
from threestudio_redream.runtime.geometry.normals import NORMAL_TYPES, finite_difference_normal
from threestudio_redream.runtime.networks import ProgressiveBandHashGrid, get_encoding, get_mlp
from threestudio_redream.runtime.registry import register

__all__ = ["ImplicitVolume"]


@register("implicit-volume")
class ImplicitVolume(BaseImplicitGeometry):
    """Density and features at world points.

    Convention: normals are unit vectors and point outwards, against the gradient of the density. For
    a blob at the origin the normal at ``(0.3, 0, 0)`` is ``(1, 0, 0)``. They are taken before the
    activation, which changes no direction but would round to nothing where density is tiny. Where
    the density is constant the normal is the zero vector.

    Keys:
        n_input_dims: 3, the coordinates of a point. n_feature_dims: channels for the material, 3 for colours.
        density_activation: from the network's output to the density, by name.
        pos_encoding_config: see :class:`~threestudio_redream.kernels.hashgrid.config.HashGridConfig`. Further
            ``otype``: ProgressiveBandHashGrid, ProgressiveBandFrequency.
        mlp_network_config: of the networks behind the encoding: ``otype``, ``activation``, ``output_activation``,
            ``n_neurons``, ``n_hidden_layers``.
        density_blob_scale, density_blob_std: of the blobs that ``density_bias`` names.
        density_bias: added before the activation: a number; ``blob_dreamfusion``
            ``scale * exp(-r^2 / (2 std^2))``; or ``blob_magic3d`` ``scale * (1 - r / std)``.
        anneal_density_blob_std_config: ``min_anneal_step``, ``max_anneal_step``, ``start_val``,
            ``end_val``: the blob's std moves linearly between the two steps.
        normal_type: ``finite_difference`` (3 more evaluations), ``finite_difference_laplacian``
            (central, 6 more), ``analytic`` (autograd), ``pred`` (a network) or ``none``.
        finite_difference_normal_eps: a step in world units, or ``progressive``: the cell of the finest
            open level of a ProgressiveBandHashGrid (Neuralangelo, Li et al. 2023).
    """

    @dataclass
    class Config(BaseImplicitGeometry.Config):
        n_input_dims: int = 3
        n_feature_dims: int = 3
        density_activation: str | None = "softplus"
        density_bias: Any = "blob_magic3d"
        density_blob_scale: float = 10.0
        density_blob_std: float = 0.5
        pos_encoding_config: dict = field(
            default_factory=lambda: {
                "otype": "HashGrid",
                "n_levels": 16,
                "n_features_per_level": 2,
                "log2_hashmap_size": 19,
                "base_resolution": 16,
                "per_level_scale": 1.447269237440378,
            }
        )
        mlp_network_config: dict = field(
            default_factory=lambda: {
                "otype": "VanillaMLP",
                "activation": "ReLU",
                "output_activation": "none",
                "n_neurons": 64,
                "n_hidden_layers": 1,
            }
        )
        normal_type: str | None = "finite_difference"
        finite_difference_normal_eps: Any = 0.01
        isosurface_threshold: Any = 25.0
        anneal_density_blob_std_config: dict | None = None

    cfg: Config

    def configure(self) -> None:
        super().configure()
        self._check_config()
        self.density_activation = get_activation(self.cfg.density_activation)
        self.density_blob_std = self.cfg.density_blob_std
        self.encoding = get_encoding(self.cfg.n_input_dims, self.cfg.pos_encoding_config)
        width = self.encoding.n_output_dims
        self.density_network = get_mlp(width, 1, self.cfg.mlp_network_config)
        if self.cfg.n_feature_dims > 0:
            self.feature_network = get_mlp(width, self.cfg.n_feature_dims, self.cfg.mlp_network_config)
        if self.cfg.normal_type == "pred":
            self.normal_network = get_mlp(width, 3, self.cfg.mlp_network_config)
        self.finite_difference_normal_eps = self._normal_eps(0)

    def get_activated_density(self, points: Tensor, density: Tensor) -> tuple[Tensor, Tensor]:
        """Add the bias at ``points`` ``[..., 3]`` to ``density`` ``[..., 1]``: (raw, activated)."""
        bias: Any = self.cfg.density_bias
        if bias == "blob_dreamfusion":
            squared = (points * points).sum(dim=-1, keepdim=True)
            bias = self.cfg.density_blob_scale * torch.exp(-0.5 * squared / self.density_blob_std**2)
        elif bias == "blob_magic3d":
            bias = self.cfg.density_blob_scale * (1.0 - points.norm(dim=-1, keepdim=True) / self.density_blob_std)
        raw = density + bias
        return raw, self.density_activation(raw)

    def forward(self, points: Tensor, output_normal: bool = False) -> dict[str, Tensor]:
        """See :meth:`BaseImplicitGeometry.forward`; ``points`` ``[..., 3]`` in world units.

        Raises:
            ConfigError: if normals are asked for and ``normal_type`` is ``none``.
        """
        if output_normal and self.cfg.normal_type == "analytic":
            return self._forward_analytic(points)
        encoded, raw, density = self._density(points)
        output = {"density": density, **self._features(encoded, points)}
        if output_normal:
            normal = self._normal(points, encoded, raw)
            output["normal"] = output["shading_normal"] = normal
        return output

    def forward_density(self, points: Tensor) -> Tensor:
        """Activated density ``[..., 1]`` at ``points`` ``[..., 3]``."""
        return self._density(points)[2]

    def forward_field(self, points: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.forward_density(points), None

    def forward_level(self, field: Tensor, threshold: float) -> Tensor:
        return threshold - field

    def export(self, points: Tensor, **kwargs: Any) -> dict[str, Any]:
        """``features`` ``[..., F]`` at surface points ``[..., 3]``; empty without feature channels."""
        return self._features(self._encode(points), points)

    @staticmethod
    @torch.no_grad()
    def create_from(other: BaseGeometry, cfg: Any = None, copy_net: bool = True, **kwargs: Any) -> ImplicitVolume:
        """A copy of another implicit volume; with ``copy_net`` also of its feature and normal networks.

        Raises:
            ConfigError: (a TypeError) if ``other`` is not an implicit volume.
        """
        if not isinstance(other, ImplicitVolume):
            raise ConfigError(
                "An implicit-volume can only be made from an implicit-volume",
                received=type(other).__name__,
                fix="Set system.geometry_convert_from to a run whose geometry_type is implicit-volume.",
            )
        instance = ImplicitVolume(cfg, **kwargs)
        names = ["encoding", "density_network"]
        if copy_net and other.cfg.n_feature_dims == instance.cfg.n_feature_dims > 0:
            names.append("feature_network")
        if copy_net and other.cfg.normal_type == instance.cfg.normal_type == "pred":
            names.append("normal_network")
        for name in names:
            getattr(instance, name).load_state_dict(getattr(other, name).state_dict())
        return instance

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        self.finite_difference_normal_eps = self._normal_eps(global_step)
        anneal = self.cfg.anneal_density_blob_std_config
        if anneal is not None:
            span = max(anneal["max_anneal_step"] - anneal["min_anneal_step"], 1)
            share = min(max((global_step - anneal["min_anneal_step"]) / span, 0.0), 1.0)
            self.density_blob_std = anneal["start_val"] + share * (anneal["end_val"] - anneal["start_val"])

    def _encode(self, points: Tensor) -> Tensor:
        unit = contract_to_unisphere(points, self.bbox, self.unbounded)
        return self.encoding(unit.reshape(-1, self.cfg.n_input_dims))

    def _density(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encoding ``[N, E]`` of the flattened points, raw and activated density ``[..., 1]``."""
        encoded = self._encode(points)
        network = self.density_network(encoded).view(*points.shape[:-1], 1)
        return encoded, *self.get_activated_density(points, network)

    def _features(self, encoded: Tensor, points: Tensor) -> dict[str, Tensor]:
        if self.cfg.n_feature_dims == 0:
            return {}
        return {"features": self.feature_network(encoded).view(*points.shape[:-1], self.cfg.n_feature_dims)}

    def _normal(self, points: Tensor, encoded: Tensor, raw: Tensor) -> Tensor:
        kind = self.cfg.normal_type
        if kind == "pred":
            return functional.normalize(self.normal_network(encoded).view(*points.shape[:-1], 3), dim=-1)
        if kind in (None, "none"):
            raise ConfigError(
                "Normals are needed, but the geometry makes none",
                received=kind,
                fix="Set geometry.normal_type: finite_difference, or a material and renderer without normals.",
            )
        return finite_difference_normal(
            lambda moved: self._density(moved)[1],
            points,
            raw,
            self.finite_difference_normal_eps,
            bound=None if self.unbounded else self.cfg.radius,
            central=kind == "finite_difference_laplacian",
        )

    def _forward_analytic(self, points: Tensor) -> dict[str, Tensor]:
        keep_graph = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            if not (keep_graph and points.requires_grad):  # the caller's tensor stays as it is
                points = points.clone().detach().requires_grad_(True)
            encoded, raw, density = self._density(points)
            (gradient,) = torch.autograd.grad(raw.sum(), points, create_graph=keep_graph)
            normal = functional.normalize(-gradient, dim=-1)
            output = {"density": density, **self._features(encoded, points), "normal": normal, "shading_normal": normal}
        return output if keep_graph else {key: value.detach() for key, value in output.items()}

    def _normal_eps(self, global_step: int) -> float:
        eps = self.cfg.finite_difference_normal_eps
        if eps != "progressive":
            return float(eps)
        grid = self.encoding.encoding
        if not isinstance(grid, ProgressiveBandHashGrid):
            raise ConfigError(
                "finite_difference_normal_eps: progressive needs a ProgressiveBandHashGrid",
                received=self.cfg.pos_encoding_config.get("otype"),
                fix="Change pos_encoding_config.otype, or give a number such as 0.01.",
            )
        config = self.cfg.pos_encoding_config
        level = max(grid.level_at(global_step), 1)
        cells = config["base_resolution"] * config["per_level_scale"] ** (level - 1)
        return 2.0 * self.cfg.radius / cells

    def _check_config(self) -> None:
        bias, eps, anneal = (
            self.cfg.density_bias,
            self.cfg.finite_difference_normal_eps,
            self.cfg.anneal_density_blob_std_config,
        )
        if not _is_number(bias) and bias not in ("blob_dreamfusion", "blob_magic3d"):
            raise ConfigError(
                "density_bias is unknown", received=bias, fix="Use a number, blob_dreamfusion or blob_magic3d."
            )
        if self.cfg.normal_type is not None and self.cfg.normal_type not in NORMAL_TYPES:
            raise ConfigError(
                "normal_type is unknown", received=self.cfg.normal_type, fix=f"Use one of {', '.join(NORMAL_TYPES)}."
            )
        if eps != "progressive" and not (_is_number(eps) and eps > 0):
            raise ConfigError(
                "finite_difference_normal_eps is neither a positive number nor progressive",
                received=eps,
                fix="Use 0.01.",
            )
        needed = {"min_anneal_step", "max_anneal_step", "start_val", "end_val"}
        if isinstance(anneal, Mapping) and not needed <= set(anneal):
            raise ConfigError(
                "anneal_density_blob_std_config is incomplete",
                received=dict(anneal),
                fix=f"Give {', '.join(sorted(needed))}.",
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
