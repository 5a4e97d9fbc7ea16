"""Runs as plain processes on loopback what a cluster needs, the control plane first."""
