"""How fast and how lean pfstorage is, beside the published 2.0.0.2: ``python -m benchmarks --help``.

Both versions run against one development Swift, in turns, in one run: what the
machine does meanwhile strikes both. Nothing here is a test. A bound that is not
met is marked in the table, and the exit status is 0 all the same.
"""
