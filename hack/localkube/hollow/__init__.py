"""Simulates the nodes of a cluster without kubelets: ``process`` combines the parts, and says what each does."""
