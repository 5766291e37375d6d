"""Programs that run a problem: one way in, one way out, and a registry of those there are."""
