"""Tests of single modules: no subprocess, server, Swift or sleep. Run them while you work."""
