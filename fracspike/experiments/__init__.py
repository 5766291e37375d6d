"""Reproductions of published work, one file and one registry line each."""
