"""JSON in, JSON out: messages, their fields, replies and statuses."""
