"""Fractional-order spiking neurons."""
