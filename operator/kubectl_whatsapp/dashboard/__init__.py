"""The live page: a server on loopback for one person's browser. It reads from the API server and writes nothing."""
