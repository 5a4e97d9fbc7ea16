"""Makes kind clusters, also where no registry is reached: ``command`` is ``hack/kind-offline``."""
