"""Templates: how each kind of core becomes loops, one function of a kernel and a target per kind."""
