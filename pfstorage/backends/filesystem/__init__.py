"""A directory of plain files as a store."""
