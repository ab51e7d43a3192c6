"""A Flask application, under gunicorn or by itself.

    sockact exec --listen tcp:127.0.0.1:8080 -- gunicorn --chdir examples flask_app:app
    sockact exec --listen web=tcp:127.0.0.1:8080 -- python examples/flask_app.py

gunicorn takes the socket by itself. Werkzeug's server, which Flask uses for development, is given
the descriptor.
"""

import os

from flask import Flask
from werkzeug.serving import make_server

import sockact

app = Flask(__name__)


@app.get("/")
def hello() -> str:
    """Greet."""
    return f"Hello from Flask in process {os.getpid()}\n"


def main() -> None:
    """Serve with Werkzeug's own server."""
    sock = sockact.activated_or_listen("web=tcp:127.0.0.1:8080")["web"]
    # The address is only looked at for its family; the descriptor is what counts.
    make_server("127.0.0.1", 0, app, threaded=True, fd=sock.fileno()).serve_forever()


if __name__ == "__main__":
    main()
