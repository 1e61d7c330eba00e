"""Geometry of this project: initialisers and prior losses."""
