"""Breaks everything, many times, under a stream of messages: ``command`` is ``hack/chaos``."""
