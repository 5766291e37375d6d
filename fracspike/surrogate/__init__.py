"""Surrogate gradients: a Heaviside step forward, a smooth derivative backward."""
