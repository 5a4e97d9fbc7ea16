"""The tables of faults, and the actions of which they consist."""
