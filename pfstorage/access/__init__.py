"""Permissions, and a storage that is limited to them."""
