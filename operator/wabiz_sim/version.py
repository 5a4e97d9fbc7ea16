"""The version of the simulator, and the client version that it reports."""

VERSION = "0.1.0"
"""The release's version. The simulator's image does not contain the operator, which defines it too, so a test compares the two."""

CLIENT_VERSION = "v2.53.4"
