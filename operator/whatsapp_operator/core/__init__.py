"""The room that decides. No I/O, no clock, no randomness, no framework: values in, values out."""
