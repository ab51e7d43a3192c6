"""Definition text to `sockact.spec.SocketSpec`, and back."""
