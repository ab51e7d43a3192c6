"""The smallest server: one inherited socket, one connection after the other.

sockact exec --listen tcp:127.0.0.1:8080 -- python examples/plain_socket.py
"""

import sockact


def main() -> None:
    """Greet whoever connects."""
    listener = sockact.socket()
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"Hello\n")


if __name__ == "__main__":
    main()
