"""Environments of hollow nodes."""
