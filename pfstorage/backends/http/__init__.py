"""HTTP connections to a store: pooled, with TLS, proxies and bounds in time."""
