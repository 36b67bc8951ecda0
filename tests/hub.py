"""A hub on this machine: as much of the Hugging Face hub's API as sending files takes."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Keeps what was made and committed in `server.made` and `server.files`."""

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        body, server = self.rfile.read(length), self.server
        if self.headers.get("Authorization") != f"Bearer {server.token}":
            return self.answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/validate-yaml":  # of a card
            return self.answer(200, {"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            server.made.append((name, asked.get("private", asked.get("visibility") == "private")))
            return self.answer(200, {"url": f"{server.address}/{name}"})
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            files = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self.answer(200, {"files": files})
        if "/commit/" in self.path:
            lines = [json.loads(line) for line in body.decode().splitlines()]
            for line in lines:
                if line["key"] == "file":
                    server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                else:
                    server.messages.append(line["value"]["summary"])
            url = f"{server.address}/{self.path.removeprefix('/api/models/').partition('/commit/')[0]}/commit/1"
            return self.answer(200, {"success": True, "commitUrl": url, "commitOid": "1", "hookOutput": ""})
        self.answer(404, {"error": f"no {self.path}"})

    def do_GET(self):
        self.answer(404, {"error": f"no {self.path}"})

    def answer(self, status, values):
        data = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


def start_hub() -> ThreadingHTTPServer:
    """One that runs in a thread of its own, with its `address` and the right `token`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.address, server.token = f"http://127.0.0.1:{server.server_port}", "hf_right"
    server.made, server.files, server.messages = [], {}, []
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server
