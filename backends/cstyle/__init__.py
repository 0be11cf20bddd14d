"""The renderer of kernels as C-like source, shared by the backends that compile such source."""
