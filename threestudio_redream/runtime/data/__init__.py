"""Data modules of the threestudio contract."""
