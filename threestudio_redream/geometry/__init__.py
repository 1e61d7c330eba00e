"""The retrieved assets as a 3D prior of the field."""
