"""Large objects on a real Swift."""
