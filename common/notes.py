"""The prompt of an image by what the program that made it noted in it: AUTOMATIC1111 and its kin (Forge, SD.Next), ComfyUI,
InvokeAI, SwarmUI, Fooocus. diffusers notes nothing.

Notes are texts by keyword, as `common.pngs` finds them in a PNG; JPEG and WebP images have AUTOMATIC1111's in their EXIF.
Prompts are taken as they are written, weights in brackets too, without the tags that load adapters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from common.intake import Unreadable, check_json
from common.language import gettext_noop

ADAPTERS = re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>")
SETTINGS = re.compile(r"^(?:Negative prompt:|Steps: \d+)", re.MULTILINE)
FARTHEST = 30  # nodes between a sampler and its prompt
# Inputs of ComfyUI's nodes that lead from a sampler to what the images are to show, and the texts of its encoders.
TOWARDS = (
    "positive",
    "guider",
    "conditioning",
    "conditioning_1",
    "conditioning_to",
    "cond1",
    "basic_pipe",
    "base_positive",
)
WRITTEN = (
    "text",
    "text_g",
    "t5xxl",
    "clip_l",
    "prompt",
    "string",
    "value",
    "text1",
    "positive",
    "wildcard_text",
    "populated_text",
)
SEVERAL = gettext_noop("its ComfyUI graph makes images of several prompts; name one in a file beside it")


def prompt_of(notes: dict[str, str]) -> tuple[str, str] | None:
    """(prompt, program), None where no note names one. Raises Unreadable where a graph has several."""
    if found := _parameters(notes.get("parameters", "")):
        return found
    for keyword in ("invokeai_metadata", "sd-metadata"):
        if prompt := _invoke(_object(notes.get(keyword))):
            return prompt, "InvokeAI"
    for keyword, read in (("prompt", _of_graph), ("workflow", _of_workflow)):
        if prompts := read(_object(notes.get(keyword))):
            if len(prompts) > 1:
                raise Unreadable(SEVERAL)
            return next(iter(prompts)), "ComfyUI"
    return None


def exif_note(comment: bytes) -> str:
    """The text of EXIF's UserComment, whose first eight bytes name its characters; "" for another one."""
    kind, rest = comment[:8], comment[8:]
    if kind == b"UNICODE\0":
        orders = ("utf-16-le", "utf-16-be") if rest[1:2] == b"\0" else ("utf-16-be", "utf-16-le")
        return rest.decode(orders[0], "ignore")
    return rest.decode("ascii", "ignore") if kind == b"ASCII\0\0\0" else ""


def _object(text: str | None) -> dict:
    """A note that is a JSON object; {} for any other."""
    try:
        check_json(text or "")
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _said(value: Any) -> str:
    return ADAPTERS.sub("", value).strip() if isinstance(value, str) else ""


def _parameters(text: str) -> tuple[str, str] | None:
    if about := _object(text):
        swarm = about.get("sui_image_params")
        prompt = _said(swarm.get("prompt") if isinstance(swarm, dict) else about.get("prompt"))
        return (prompt, "SwarmUI" if isinstance(swarm, dict) else "Fooocus") if prompt else None
    end = SETTINGS.search(text)
    if not text.strip() or not end:  # without its settings it is some other text
        return None
    prompt = _said(text[: end.start()])
    return (prompt, "AUTOMATIC1111") if prompt else None


def _invoke(about: dict) -> str:
    if prompt := _said(about.get("positive_prompt")):
        return prompt
    image = about.get("image")
    asked = image.get("prompt") if isinstance(image, dict) else None
    if isinstance(asked, list) and asked:
        asked = asked[0].get("prompt") if isinstance(asked[0], dict) else asked[0]
    return _said(asked)


# ---------------------------------------------------------------- ComfyUI


def _of_graph(graph: dict) -> set[str]:
    """Prompts of the samplers of a graph as it ran: nodes by number, an input is a value or [node, output]."""
    nodes = {str(k): v for k, v in graph.items() if isinstance(v, dict) and isinstance(v.get("inputs"), dict)}
    found = set()
    for node in nodes.values():
        if _samples(str(node.get("class_type", ""))):
            found |= set(_texts_before(nodes, node, 0))
    return found


def _samples(kind: str) -> bool:
    return "Sampler" in kind and "Select" not in kind


def _texts_before(nodes: dict[str, dict], node: dict, far: int) -> Iterator[str]:
    """The texts that lead into a node by what it is to show; of an encoder with several the first."""
    inputs = node["inputs"]
    ahead = [inputs[name] for name in TOWARDS if _is_link(inputs.get(name))]
    for link in ahead:
        if far < FARTHEST and (before := nodes.get(str(link[0]))) is not None:
            yield from _texts_before(nodes, before, far + 1)
    if ahead or far == 0:
        return
    for name in WRITTEN:
        value = inputs.get(name)
        if _is_link(value) and far < FARTHEST and (before := nodes.get(str(value[0]))) is not None:
            texts = list(_texts_before(nodes, before, far + 1))
            if texts:
                yield texts[0]
                return
        if text := _said(value):
            yield text
            return


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int)


def _of_workflow(workflow: dict) -> set[str]:
    """The same of a graph as it is drawn: a list of nodes with inputs that name links, and a list of links
    [number, from node, output, to node, input, kind]."""
    listed, links = workflow.get("nodes"), workflow.get("links")
    if not isinstance(listed, list) or not isinstance(links, list):
        return set()
    begins = {str(link[0]): link[1] for link in links if isinstance(link, list) and len(link) > 2}
    graph = {}
    for node in listed:
        if not isinstance(node, dict):
            continue
        inputs = {}
        for given in node["inputs"] if isinstance(node.get("inputs"), list) else ():
            if isinstance(given, dict) and str(given.get("link")) in begins:
                inputs[str(given.get("name"))] = [begins[str(given["link"])], 0]
        values = node.get("widgets_values")
        if isinstance(values, list) and "text" not in inputs:
            inputs["text"] = next((v for v in values if isinstance(v, str)), "")
        graph[str(node.get("id"))] = {"class_type": node.get("type", ""), "inputs": inputs}
    return _of_graph(graph)
