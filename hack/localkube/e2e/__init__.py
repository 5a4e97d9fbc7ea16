"""Walks the user's own path on real nodes of kind and breaks everything there: ``command`` is ``hack/e2e``."""
