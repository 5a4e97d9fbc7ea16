"""Objects of the API server as values of the core. Pure."""
