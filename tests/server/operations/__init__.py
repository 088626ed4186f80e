"""The operation of a server: probes, metrics, logs, limits, settings and jobs."""
