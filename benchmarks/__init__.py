"""Compare the speed and the memory of pfstorage with its peers: ``python -m benchmarks --help``.

The peers are the published 2.0.0.2, the commands ``swift`` and ``rclone``, and ``curl``. All run against one
development Swift, in turns, in one run: other load of the machine affects all of them. No benchmark is a test.
The table marks a bound that is not met, and the exit status is 0 even then.
"""
