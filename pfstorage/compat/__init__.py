"""Provide the names and calls of pfstorage 2.x."""
