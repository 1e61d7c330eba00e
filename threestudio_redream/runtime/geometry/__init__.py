"""Geometry: fields that say how dense space is and what its features are."""
