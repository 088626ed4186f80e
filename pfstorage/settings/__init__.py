"""Read, check and change the settings of a process, and protect their secrets."""
