"""The settings of a process: their sources, their tree and their secrets."""
