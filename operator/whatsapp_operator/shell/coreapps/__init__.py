"""Everything that speaks with Coreapps, and how far that can be trusted."""
