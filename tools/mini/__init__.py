"""Regenerates the mini lab from nothing: the asset library, its renders, the mini CLIP, the mini Stable Diffusion."""
