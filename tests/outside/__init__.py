"""Stands outside what is tested: the observer and its laws, a load generator, and a wire that can be cut."""
