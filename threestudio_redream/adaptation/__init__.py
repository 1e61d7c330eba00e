"""Adapting a 2D diffusion model to the retrieved assets: view tokens and a LoRA trained on their renders."""
