"""Reads an unpacked archive with `rg.Dataset.from_disk`, against a server that keeps what it is sent.

usage: read_with_argilla.py FOLDER
"""

import json
import sys
import uuid
import warnings

import argilla as rg
import httpx

warnings.simplefilter("ignore")
sent = {"fields": [], "questions": [], "metadata-properties": [], "records": []}
NOW = "2026-01-01T00:00:00"
USER = {"id": str(uuid.uuid4()), "username": "ann", "first_name": "Ann", "role": "owner"}
DATASET = str(uuid.uuid4())
SPACE = {"id": str(uuid.uuid4()), "name": "argilla"}


def answer(request: httpx.Request) -> httpx.Response:
    """As Argilla's server answers, as far as `from_disk` asks."""
    path, body = request.url.path.rstrip("/"), json.loads(request.content or "{}")
    last = path.rsplit("/", 1)[1]
    stamps = {"id": str(uuid.uuid4()), "inserted_at": NOW, "updated_at": NOW}
    if last == "me":
        return httpx.Response(200, json=stamps | USER)
    if "/workspaces/" in path:
        return httpx.Response(200, json=stamps | SPACE)
    if last == "workspaces":
        return httpx.Response(200, json={"items": [stamps | SPACE]})
    if last == "bulk":
        sent["records"] += body["items"]
        items = [{"status": "pending", **stamps, **r, "responses": [], "suggestions": []} for r in body["items"]]
        return httpx.Response(200, json={"items": items, "updated_item_ids": []})
    if request.method == "POST" and last in sent:
        sent[last].append(body | stamps)
        return httpx.Response(201, json=sent[last][-1])
    if (last == "datasets" and request.method == "GET") or last in (*sent, "vectors-settings"):
        return httpx.Response(200, json={"items": sent.get(last, [])})
    about = {"name": "likestep", "status": "ready", "workspace_id": SPACE["id"]}
    return httpx.Response(200, json=stamps | about | {"id": DATASET})


httpx.HTTPTransport = lambda **_options: httpx.MockTransport(answer)
client = rg.Argilla(api_url="http://argilla.test", api_key="key")
dataset = rg.Dataset.from_disk(sys.argv[1], workspace="argilla", client=client)
print(json.dumps(sent))
