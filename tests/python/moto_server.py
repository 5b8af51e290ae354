"""moto's S3 on a free port until standard input ends. The first line of standard output is its address.

Requests are served one at a time: moto looks whether a key is there and then creates it, which in two threads at once
would create it twice.
"""

import io
import sys
import threading

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class Quiet(WSGIRequestHandler):
    """Keeps connections, and says nothing of requests."""

    protocol_version = "HTTP/1.1"

    def log_request(self, *_: object) -> None:
        pass


def main() -> None:
    inner = DomainDispatcherApplication(create_backend_app)
    one_at_a_time = threading.Lock()

    def application(environ, start_response):
        query = environ.get("QUERY_STRING", "")
        if environ["REQUEST_METHOD"] == "POST" and query.startswith("Action="):
            # To AWS the parameters of an action are the same in a query as in a form; moto looks at forms.
            form = query.encode()
            environ["wsgi.input"] = io.BytesIO(form)
            environ.update(
                QUERY_STRING="",
                CONTENT_LENGTH=str(len(form)),
                CONTENT_TYPE="application/x-www-form-urlencoded",
            )
        with one_at_a_time:
            return [b"".join(inner(environ, start_response))]

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
