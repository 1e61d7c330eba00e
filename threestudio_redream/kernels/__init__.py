"""Numeric kernels: numba on the CPU, each beside a torch or numpy reference. Importing this loads neither."""
