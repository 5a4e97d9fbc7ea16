"""Tests of the operator on real control planes."""
