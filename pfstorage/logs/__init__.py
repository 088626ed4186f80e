"""Log lines, standard output, and records of messages."""
