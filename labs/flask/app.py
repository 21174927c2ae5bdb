"""What the lab's service runs: it says which revision it is, and from which container."""

import os
import signal
import socket
import sys

from flask import Flask

app = Flask(__name__)


@app.route("/")
def hello():
    return f"revision {os.environ['REVISION']} from {socket.gethostname()}\n"


@app.route("/health")
def health():
    return "ok\n"


@app.route("/crash")
def crash():
    os._exit(1)


if __name__ == "__main__":
    # PID 1 of a container hears no SIGTERM unless it asks for it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if os.environ.get("BROKEN"):
        sys.exit("this revision is broken")
    app.run(host="0.0.0.0", port=8080)
