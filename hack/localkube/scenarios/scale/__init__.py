"""Measures one operator with very many clusters: ``command`` is ``hack/bench --scale``."""
