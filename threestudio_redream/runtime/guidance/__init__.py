"""Guidance: from rendered images and a prompt to losses."""
