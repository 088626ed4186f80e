"""Jobs: messages that run after their reply. A queue in SQLite keeps them across restarts of the server."""
