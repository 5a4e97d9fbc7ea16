"""The environment of real nodes on kind."""
