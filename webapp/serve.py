"""The web server: `python -m webapp.serve --port 8000`.

uvicorn with this program's bounds (`webapp.lib.server`). Like uvicorn it reads WEB_CONCURRENCY and FORWARDED_ALLOW_IPS.
"""

from __future__ import annotations

import argparse

import uvicorn

from webapp.lib import server


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m webapp.serve", description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; 0.0.0.0 for all of the machine")
    parser.add_argument("--port", type=int, default=8000)
    a = parser.parse_args(arguments)
    uvicorn.run(
        "webapp.asgi:application",
        host=a.host,
        port=a.port,
        http=server.Connection,
        ws=server.Socket,
        ws_max_size=server.FRAME,
        ws_per_message_deflate=False,  # notices are short, and what is unpacked is longer than what was let in
        timeout_keep_alive=server.KEEP_ALIVE,
        access_log=False,  # it names addresses; the app logs their patterns
        log_config=None,  # settings.LOGGING
    )


if __name__ == "__main__":
    main()
