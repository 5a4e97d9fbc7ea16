"""Measures failovers and resizes on a real API server: ``failovers`` is the command ``hack/bench``."""
