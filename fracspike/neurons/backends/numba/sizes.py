"""How many neurons and steps the kernels take at once."""

BLOCK = 64  # neurons of a block of the general kernels: its modes stay in the cache
LANES = 16  # neurons of a vector
STRETCH = 16  # steps that are taken at once ...
MOMENTS = 4  # ... by slow modes with so many terms of (1 - loss)^steps
FEW = 1024  # neurons with coefficients of their own that are worth keeping in memory
