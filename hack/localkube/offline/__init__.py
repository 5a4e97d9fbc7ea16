"""Creates kind clusters, even without access to a registry: ``command`` is ``hack/kind-offline``."""
