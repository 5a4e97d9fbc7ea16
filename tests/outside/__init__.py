"""Stands outside what is tested: the observer and its laws, a customer who sends messages, and a wire that can be cut."""
