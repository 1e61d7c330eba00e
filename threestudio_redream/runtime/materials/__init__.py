"""Materials: from features (and normals and lights) at points to colours."""
