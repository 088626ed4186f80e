"""Messages that are answered later: they are kept in a file, and survive the end of the process."""
