"""The HTTP server: from a connection to the dispatcher, and back."""
