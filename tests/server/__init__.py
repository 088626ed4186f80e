"""The HTTP server, in the process of the test."""
