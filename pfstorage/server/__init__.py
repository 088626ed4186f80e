"""The HTTP door: from a connection to the dispatcher, and back."""
