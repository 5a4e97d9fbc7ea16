"""Mutation testing of the core: it is changed in one place at a time, and a unit test must fail. `make mutants`.

mutmut leaves decorated functions and everything outside of functions alone: here, the properties of the facts and the tables of rules.
cosmic-ray starts pytest again for each change, which takes seconds. So this is a driver of its own: the tests are collected once, each
mutant is a fork, and the changed code is put in place of the old one.
"""
