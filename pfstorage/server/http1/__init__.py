"""HTTP/1.1: heads, bodies, forms and connections."""
