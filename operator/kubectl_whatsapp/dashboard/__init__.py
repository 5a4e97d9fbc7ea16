"""The live page: a server on loopback for one person's browser, which reads the API server and writes nothing."""
