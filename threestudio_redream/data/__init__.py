"""Data modules of this project."""
