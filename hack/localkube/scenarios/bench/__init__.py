"""Measures on a real API server: ``failovers`` is the command ``hack/bench``, ``plugin`` is ``hack/bench --plugin``."""
