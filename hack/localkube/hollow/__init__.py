"""Plays the nodes of a cluster without kubelets: ``process`` is the whole, and says what each part does."""
