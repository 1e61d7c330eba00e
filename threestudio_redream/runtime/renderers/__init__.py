"""Renderers: rays and a scene to images."""
