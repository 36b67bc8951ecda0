"""A small OpenID Connect issuer on this machine: discovery, authorize, token, JWKS, with real signatures. Tests break its
answers one by one."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT, SECRET = "likestep", "only-for-the-tests"


class Issuer:
    """What it says of who comes: `person` is in each id_token. `spoil(claims)` changes these, `sign` the signing."""

    def __init__(self):
        self.key, self.other = (rsa.generate_private_key(65537, 2048) for _ in range(2))
        self.person = {"sub": "248289761001", "preferred_username": "jane", "email": "jane@example.org"}
        self.person["email_verified"] = True
        self.spoil = lambda claims: claims
        self.sign = self.signed
        self.discovery = lambda found: found
        self.address, self.codes, self.asked = "", {}, []

    def signed(self, claims: dict) -> str:
        """As a good issuer does."""
        return jwt.encode(claims, self.key, "RS256", headers={"kid": "one"})

    def document(self) -> dict:
        """The discovery document."""
        ways = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        found = {"issuer": self.address} | {name: f"{self.address}/{path}" for name, path in ways.items()}
        return self.discovery(found | {"token_endpoint_auth_methods_supported": ["client_secret_post"]})

    def keys(self) -> dict:
        """Its public key."""
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [public | {"kid": "one", "use": "sig", "alg": "RS256"}]}

    def authorize(self, query: dict) -> str:
        """Where the browser goes once the person has logged in."""
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def token(self, form: dict) -> tuple[int, dict]:
        """An id_token for a code, once, to who can show the secret and the PKCE verifier."""
        self.asked.append(form)
        query = self.codes.pop(form.get("code"), None)
        hashed = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(hashed).decode().rstrip("=")
        good = query and form.get("client_secret") == SECRET and form.get("client_id") == CLIENT
        if not good or query.get("code_challenge") != challenge or query["redirect_uri"] != form["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        about = {"iss": self.address, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": query["nonce"]}
        claims = self.spoil(about | self.person)
        return 200, {"access_token": "opaque", "token_type": "Bearer", "id_token": self.sign(claims)}


@contextmanager
def running():
    """An Issuer that answers at its `address`."""
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, body: dict, **headers) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            parts = urlsplit(self.path)
            if parts.path == "/authorize":
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                self.answer(302, {}, Location=issuer.authorize(query))
            elif parts.path == "/.well-known/openid-configuration":
                self.answer(200, issuer.document())
            else:
                self.answer(200, issuer.keys()) if parts.path == "/keys" else self.answer(404, {})

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.answer(*issuer.token({name: values[0] for name, values in parse_qs(body).items()}))

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
