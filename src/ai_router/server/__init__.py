"""The server: gunicorn, its worker and its sockets. Nothing outside this package knows of gunicorn."""
