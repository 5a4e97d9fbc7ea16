"""What was read from the API server, as values of the core. Pure."""
