"""Shows a cluster that fails over and resizes: ``command`` is ``hack/demo``; the benchmarks and chaos stand on its stage, too."""
