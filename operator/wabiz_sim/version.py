"""The version that the stand-in claims to be."""

CLIENT_VERSION = "v2.53.4"
