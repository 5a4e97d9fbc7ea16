"""Connections to Coreapps, and whether this process can trust its own observations."""
