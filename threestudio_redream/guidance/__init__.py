"""Guidances: what a 2D diffusion model says about renders."""
