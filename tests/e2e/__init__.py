"""Programs as a user runs them. Some need Chromium, strace or pfurl."""
