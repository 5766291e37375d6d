"""Sweeps: every point of a grid measured once, by any number of workers, and drawn.

``grid`` says which points there are, ``target`` how one is measured, ``store`` who measures which, ``worker``
does it, ``results`` shows what came of it.
"""
