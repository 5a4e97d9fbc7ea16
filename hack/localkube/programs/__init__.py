"""Provides the pinned programs: found, fetched or built, and kept in the user's cache; ``binaries`` is the way in."""
