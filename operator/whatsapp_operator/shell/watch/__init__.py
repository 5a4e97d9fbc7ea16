"""Kopf's part: events wake the loop."""
