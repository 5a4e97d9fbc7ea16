"""Tests of the tooling. `make tooling-test` runs them alone."""
