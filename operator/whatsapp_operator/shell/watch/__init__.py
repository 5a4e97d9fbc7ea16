"""Kopf's side: events wake the loop."""
