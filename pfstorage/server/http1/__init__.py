"""HTTP/1.1: heads, bodies, responses, timeouts and connections. Imports only errors and runtime of pfstorage."""
