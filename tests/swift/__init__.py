"""The Swift backend, against a real Swift (devswift) and stand-ins that inject faults."""
