"""The runner: plays the faults of a table on an environment, and reports the results."""
