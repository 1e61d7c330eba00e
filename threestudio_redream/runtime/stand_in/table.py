"""What upstream's modules hold, and where ours is; the rest with the reason why it is not here.

Plain data: :mod:`.hook` makes the modules, ``tools/docs_threestudio.py`` the page of the documentation.
"""

from __future__ import annotations

__all__ = ["ABSENT", "ABSENT_NAMES", "PROVIDED", "REGISTERED_UPSTREAM"]

_R = "threestudio_redream.runtime"


def _same(module: str, *names: str) -> dict[str, str]:
    return {name: f"{_R}.{module}:{name}" for name in names}


#: Module of upstream -> {name: where ours is}.
PROVIDED: dict[str, dict[str, str]] = {
    "threestudio": {
        **_same("registry", "register", "find"),
        **_same("stand_in", "debug", "info", "warn"),
        "logger": f"{_R}.stand_in:log",
    },
    "threestudio.utils": {},
    "threestudio.utils.base": _same(
        "base", "BaseModule", "BaseObject", "Updateable", "update_end_if_possible", "update_if_possible"
    ),
    "threestudio.utils.config": {
        **_same("config", "ExperimentConfig", "config_to_primitive", "dump_config", "load_config", "parse_structured"),
        "C_max": f"{_R}.schedule:largest_value",
    },
    "threestudio.utils.misc": {
        **_same("schedule", "C"),
        **_same("device", "cleanup", "get_device", "get_rank"),
        **_same("stand_in.distributed", "barrier", "broadcast"),
        **_same("stand_in.small_helpers", "enable_gradient", "find_last_path", "finish_with_cleanup"),
        **_same("checkpoint", "load_module_weights"),
        **_same("config", "config_to_primitive"),
        "parse_version": "packaging.version:parse",
    },
    "threestudio.utils.loss": _same("stand_in.small_helpers", "tv_loss"),
    "threestudio.utils.ops": {
        "trunc_exp": f"{_R}.activations:trunc_exp",
        **_same(
            "ops",
            "SpecifyGradient",
            "binary_cross_entropy",
            "chunk_batch",
            "dot",
            "get_activation",
            "get_full_projection_matrix",
            "get_mvp_matrix",
            "get_projection_matrix",
            "get_ray_directions",
            "get_rays",
            "mask_ray_directions",
            "perpendicular_component",
            "reflect",
            "scale_tensor",
            "shifted_cosine_decay",
            "shifted_expotional_decay",
            "validate_empty_rays",
        ),
        **_same(
            "stand_in.gaussian_cameras",
            "convert_pose",
            "get_cam_info_gaussian",
            "get_fov_gaussian",
            "get_projection_matrix_gaussian",
        ),
    },
    "threestudio.utils.perceptual": _same("perceptual", "PerceptualLoss"),
    "threestudio.utils.perceptual.perceptual": _same("perceptual", "PerceptualLoss", "PerceptualLossObject"),
    "threestudio.utils.rasterize": _same("stand_in.rasterize", "NVDiffRasterizerContext"),
    "threestudio.utils.saving": _same("saving", "SaverMixin"),
    "threestudio.utils.typing": {},  # filled from runtime.typing below
    "threestudio.data": {},
    "threestudio.data.uncond": _same(
        "data.random_camera",
        "RandomCameraDataModule",
        "RandomCameraDataModuleConfig",
        "RandomCameraDataset",
        "RandomCameraIterableDataset",
    ),
    "threestudio.systems": {},
    "threestudio.systems.base": _same("system", "BaseLift3DSystem", "BaseSystem"),
    "threestudio.systems.optimizers": _same("adan", "Adan"),
    "threestudio.systems.utils": _same(
        "optim",
        "get_parameters",
        "get_scheduler",
        "getattr_recursive",
        "parse_optimizer",
        "parse_scheduler",
        "parse_scheduler_to_instance",
    ),
    "threestudio.models": {},
    "threestudio.models.background": {},
    "threestudio.models.background.base": _same("backgrounds.base", "BaseBackground"),
    "threestudio.models.background.neural_environment_map_background": _same(
        "backgrounds.neural_environment_map", "NeuralEnvironmentMapBackground"
    ),
    "threestudio.models.background.solid_color_background": _same("backgrounds.solid_color", "SolidColorBackground"),
    "threestudio.models.exporters": {},
    "threestudio.models.exporters.base": _same("exporters.base", "Exporter", "ExporterOutput"),
    "threestudio.models.exporters.mesh_exporter": _same("exporters.mesh_exporter", "MeshExporter"),
    "threestudio.models.geometry": {},
    "threestudio.models.geometry.base": _same(
        "geometry.base", "BaseExplicitGeometry", "BaseGeometry", "BaseImplicitGeometry", "contract_to_unisphere"
    ),
    "threestudio.models.geometry.implicit_volume": _same("geometry.implicit_volume", "ImplicitVolume"),
    "threestudio.models.guidance": {},
    "threestudio.models.isosurface": _same(
        "geometry.isosurface", "IsosurfaceHelper", "MarchingCubeCPUHelper", "MarchingTetrahedraHelper"
    ),
    "threestudio.models.materials": {},
    "threestudio.models.materials.base": _same("materials.base", "BaseMaterial"),
    "threestudio.models.materials.diffuse_with_point_light_material": _same(
        "materials.diffuse_with_point_light", "DiffuseWithPointLightMaterial"
    ),
    "threestudio.models.materials.no_material": _same("materials.no_material", "NoMaterial"),
    "threestudio.models.mesh": {"Mesh": f"{_R}.geometry.surface:SurfaceMesh"},
    "threestudio.models.networks": {
        "TCNNEncoding": f"{_R}.tcnn:TcnnEncoding",
        "TCNNNetwork": f"{_R}.tcnn:TcnnNetwork",
        "ToDTypeWrapper": f"{_R}.stand_in.small_helpers:ToDTypeWrapper",
        **_same(
            "networks",
            "CompositeEncoding",
            "NetworkWithInputEncoding",
            "ProgressiveBandFrequency",
            "ProgressiveBandHashGrid",
            "SphereInitVanillaMLP",
            "VanillaMLP",
            "create_network_with_input_encoding",
            "get_encoding",
            "get_mlp",
        ),
    },
    "threestudio.models.prompt_processors": {},
    "threestudio.models.prompt_processors.base": _same(
        "prompt_processors.base", "PromptProcessor", "PromptProcessorOutput", "hash_prompt"
    ),
    "threestudio.models.prompt_processors.stable_diffusion_prompt_processor": {
        "StableDiffusionPromptProcessor": "threestudio_redream.prompt_processors.stable_diffusion:"
        "StableDiffusionPromptProcessor"
    },
    "threestudio.models.renderers": {},
    "threestudio.models.renderers.base": _same("renderers.base", "Rasterizer", "Renderer", "VolumeRenderer"),
    "threestudio.models.renderers.nerf_volume_renderer": _same("renderers.nerf_volume_renderer", "NeRFVolumeRenderer"),
}

_MODEL = "a 2D model of its own with upstream's wiring"
_SYSTEM = "a training loop of upstream's; ours are redream-system and redream-score-distillation-system"
_PHOTOS = "a data module that reads photographs through OpenCV"
_SURFACE = "a shape whose renderers (NeuS through nerfacc, or nvdiffrast) need CUDA"
_CUDA = "it draws through CUDA code (nerfacc, nvdiffrast)"

#: Module of upstream -> why it is not here. Each loads from a checkout of upstream, see :mod:`.checkout`.
ABSENT: dict[str, str] = {
    "threestudio.data.co3d": _PHOTOS,
    "threestudio.data.image": _PHOTOS,
    "threestudio.data.multiview": _PHOTOS,
    "threestudio.data.uncond_eff": "cameras for training on a few pixels of large pictures; random-camera-datamodule "
    "takes a list of sizes instead",
    "threestudio.models.background.textured_background": "a background nobody has asked for yet",
    "threestudio.models.estimators": "it extends a class of the package nerfacc, whose samplers need CUDA",
    "threestudio.models.geometry.custom_mesh": "a fixed mesh for nvdiffrast",
    "threestudio.models.geometry.implicit_sdf": _SURFACE,
    "threestudio.models.geometry.tetrahedra_sdf_grid": _SURFACE,
    "threestudio.models.geometry.volume_grid": "a dense grid; implicit-volume with otype DenseGrid is ours",
    "threestudio.models.guidance.controlnet_guidance": _MODEL + " (ControlNet, through OpenCV and controlnet_aux)",
    "threestudio.models.guidance.deep_floyd_guidance": _MODEL + " (DeepFloyd IF)",
    "threestudio.models.guidance.instructpix2pix_guidance": _MODEL + " (InstructPix2Pix, through OpenCV)",
    "threestudio.models.guidance.stable_diffusion_guidance": _MODEL + "; redream-sds-guidance is ours",
    "threestudio.models.guidance.stable_diffusion_sdi_guidance": _MODEL,
    "threestudio.models.guidance.stable_diffusion_unified_guidance": _MODEL + "; it reads the LoRA layers of "
    "diffusers before 0.26; redream-vsd-guidance is ours",
    "threestudio.models.guidance.stable_diffusion_vsd_guidance": _MODEL + "; it uses the LoRA attention of diffusers "
    "before 0.26; redream-vsd-guidance is ours",
    "threestudio.models.guidance.stable_zero123_guidance": _MODEL + " (Zero123, whose code lies outside threestudio)",
    "threestudio.models.guidance.zero123_guidance": _MODEL + " (Zero123, whose code lies outside threestudio)",
    "threestudio.models.guidance.zero123_unified_guidance": _MODEL + " (Zero123, through torchvision)",
    "threestudio.models.materials.hybrid_rgb_latent_material": "a material nobody has asked for yet",
    "threestudio.models.materials.neural_radiance_material": "a material nobody has asked for yet",
    "threestudio.models.materials.pbr_material": "it shades through nvdiffrast and envlight, which need CUDA",
    "threestudio.models.materials.sd_latent_adapter_material": "a material nobody has asked for yet",
    "threestudio.models.prompt_processors.deepfloyd_prompt_processor": "text embeddings of T5, for DeepFloyd IF",
    "threestudio.models.prompt_processors.dummy_prompt_processor": "it encodes nothing",
    "threestudio.models.renderers.deferred_volume_renderer": "an empty base class",
    "threestudio.models.renderers.gan_volume_renderer": "a renderer with a GAN behind it",
    "threestudio.models.renderers.neus_volume_renderer": _CUDA,
    "threestudio.models.renderers.nvdiff_rasterizer": _CUDA,
    "threestudio.models.renderers.patch_renderer": "it renders patches beside a small picture",
    "threestudio.scripts": "programs, not parts",
    **{
        f"threestudio.systems.{name}": _SYSTEM
        for name in (
            "control4d_multiview",
            "dreamfusion",
            "eff_dreamfusion",
            "fantasia3d",
            "imagedreamfusion",
            "instructnerf2nerf",
            "latentnerf",
            "magic123",
            "magic3d",
            "prolificdreamer",
            "sdi",
            "sjc",
            "textmesh",
            "zero123",
            "zero123_simple",
        )
    },
    "threestudio.utils.GAN": "networks and losses of the GAN renderer",
    "threestudio.utils.callbacks": "callbacks of upstream's launcher; ours has its own",
    "threestudio.utils.perceptual.utils": "downloads of upstream's perceptual loss; ours finds its weights itself",
}

#: ``module:name`` -> why this name of a module that is here is not.
ABSENT_NAMES: dict[str, str] = {
    "threestudio.models.networks:TCNNEncodingSpatialTime": "a spatio-temporal grid of tiny-cuda-nn",
    "threestudio.models.networks:TCNNNetworkWithInputEncoding": "encoding and network fused by tiny-cuda-nn; "
    "create_network_with_input_encoding builds both",
    "threestudio.utils.ops:MeshOBJ": "winding numbers of a mesh, through libigl",
    "threestudio.utils.ops:ShapeLoss": "Latent-NeRF's sketch loss, through libigl; the 3D prior of redream-system "
    "(system.retrieval.asset) holds a field to a mesh",
    "threestudio.utils.ops:ce_pq_loss": "part of Latent-NeRF's sketch loss",
    "threestudio.utils.ops:tet_sdf_diff": "a penalty on grids of tetrahedra that upstream itself does not use",
}

#: Registered names of upstream's that are not here -> (module that registers them, what is nearest here or nothing).
REGISTERED_UPSTREAM: dict[str, tuple[str, str]] = {
    "co3d-datamodule": ("data.co3d", ""),
    "control4d-multiview-system": ("systems.control4d_multiview", ""),
    "custom-mesh": ("models.geometry.custom_mesh", "retrieved-asset-initializer"),
    "deep-floyd-guidance": ("models.guidance.deep_floyd_guidance", "redream-sds-guidance"),
    "deep-floyd-prompt-processor": ("models.prompt_processors.deepfloyd_prompt_processor", ""),
    "dreamfusion-system": ("systems.dreamfusion", "redream-score-distillation-system"),
    "dummy-prompt-processor": ("models.prompt_processors.dummy_prompt_processor", ""),
    "eff-random-camera-datamodule": ("data.uncond_eff", "random-camera-datamodule"),
    "efficient-dreamfusion-system": ("systems.eff_dreamfusion", "redream-score-distillation-system"),
    "fantasia3d-system": ("systems.fantasia3d", ""),
    "gan-volume-renderer": ("models.renderers.gan_volume_renderer", "nerf-volume-renderer"),
    "hybrid-rgb-latent-material": ("models.materials.hybrid_rgb_latent_material", "no-material"),
    "image-condition-dreamfusion-system": ("systems.imagedreamfusion", ""),
    "implicit-sdf": ("models.geometry.implicit_sdf", "implicit-volume"),
    "instructnerf2nerf-system": ("systems.instructnerf2nerf", ""),
    "latentnerf-system": ("systems.latentnerf", "redream-score-distillation-system"),
    "magic123-system": ("systems.magic123", ""),
    "magic3d-system": ("systems.magic3d", ""),
    "multiview-camera-datamodule": ("data.multiview", ""),
    "neural-radiance-material": ("models.materials.neural_radiance_material", "no-material"),
    "neus-volume-renderer": ("models.renderers.neus_volume_renderer", "nerf-volume-renderer"),
    "nvdiff-rasterizer": ("models.renderers.nvdiff_rasterizer", "nerf-volume-renderer"),
    "patch-renderer": ("models.renderers.patch_renderer", "nerf-volume-renderer"),
    "pbr-material": ("models.materials.pbr_material", "diffuse-with-point-light-material"),
    "prolificdreamer-system": ("systems.prolificdreamer", "redream-score-distillation-system"),
    "sd-latent-adapter-material": ("models.materials.sd_latent_adapter_material", "no-material"),
    "sdi-system": ("systems.sdi", ""),
    "single-image-datamodule": ("data.image", ""),
    "sjc-system": ("systems.sjc", "redream-score-distillation-system"),
    "stable-diffusion-controlnet-guidance": ("models.guidance.controlnet_guidance", ""),
    "stable-diffusion-guidance": ("models.guidance.stable_diffusion_guidance", "redream-sds-guidance"),
    "stable-diffusion-instructpix2pix-guidance": ("models.guidance.instructpix2pix_guidance", ""),
    "stable-diffusion-sdi-guidance": ("models.guidance.stable_diffusion_sdi_guidance", "redream-sds-guidance"),
    "stable-diffusion-unified-guidance": (
        "models.guidance.stable_diffusion_unified_guidance",
        "redream-vsd-guidance",
    ),
    "stable-diffusion-vsd-guidance": ("models.guidance.stable_diffusion_vsd_guidance", "redream-vsd-guidance"),
    "stable-zero123-guidance": ("models.guidance.stable_zero123_guidance", ""),
    "tetrahedra-sdf-grid": ("models.geometry.tetrahedra_sdf_grid", "implicit-volume"),
    "textmesh-system": ("systems.textmesh", ""),
    "textured-background": ("models.background.textured_background", "neural-environment-map-background"),
    "volume-grid": ("models.geometry.volume_grid", "implicit-volume"),
    "zero123-guidance": ("models.guidance.zero123_guidance", ""),
    "zero123-simple-system": ("systems.zero123_simple", ""),
    "zero123-system": ("systems.zero123", ""),
    "zero123-unified-guidance": ("models.guidance.zero123_unified_guidance", ""),
}
