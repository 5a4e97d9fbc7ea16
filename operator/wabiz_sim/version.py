"""The version of the simulator, and the one that it claims to be."""

VERSION = "0.1.0"
"""Of the release; its image holds nothing of the operator to take it from, so a test compares the two."""

CLIENT_VERSION = "v2.53.4"
