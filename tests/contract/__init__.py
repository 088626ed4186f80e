"""The contract of a storage, and actions over every backend: filesystem, memory and a real Swift."""
