"""Shows a cluster that fails over and resizes: ``command`` is ``hack/demo``. ``cluster``, ``stage`` and ``environment`` serve others, too."""
