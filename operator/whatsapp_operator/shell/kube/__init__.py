"""Everything that knows the API server."""
