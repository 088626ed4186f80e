"""Cancellation, fair scheduling, sockets and unexpected errors of this process."""
