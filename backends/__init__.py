"""Backends: what runs the kernels. The core reaches them by name, through :mod:`minigrad.device`."""
