"""Shows a cluster that fails over and resizes: ``command`` is ``hack/demo``. ``cluster``, ``stage`` and ``environment`` are for others, too."""
