"""Shows a cluster that fails over and resizes: ``command`` is ``hack/demo``."""
