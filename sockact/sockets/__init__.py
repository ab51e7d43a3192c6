"""`sockact.spec.SocketSpec` to open descriptors, and the set that owns them."""
