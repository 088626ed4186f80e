"""Pure functions of keys: the mapping to paths, filters and name clashes."""
