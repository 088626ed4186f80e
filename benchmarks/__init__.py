"""How fast and how lean pfstorage is, beside its peers: ``python -m benchmarks --help``.

These are the published 2.0.0.2, the commands ``swift`` and ``rclone``, and ``curl``.
All run against one development Swift, in turns, in one run: what the machine does
meanwhile strikes all. Nothing here is a test. A bound that is not met is marked in
the table, and the exit status is 0 all the same.
"""
