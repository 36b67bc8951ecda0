"""Prompt files for the command line: GenEval's JSON lines, or text with a prompt a line. The web app has its own import."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from common.geneval_lines import checked_line


def read_prompts(
    path: Path, *, split: str, only_marked: bool = False, check: Callable[[str, dict], None] | None = None
) -> list[dict]:
    """GenEval lines `{"prompt", "tag"?, …}` of a `.jsonl` file, or `{"prompt"}` a line of any other; a JSON line may have
    its metadata under `metadata`. Lines with a `split` count when it is this one; those without count unless `only_marked`.
    Each that counts is shown to `check(prompt, line)`, which may raise ValueError on one that it cannot use.

    Raises ValueError that names the file's first line that cannot be read, or says that there is none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"prompts: {path} cannot be read ({error})") from error
    found, other = [], False
    for number, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        line = _json_line(path, number, content) if path.suffix == ".jsonl" else {"prompt": " ".join(content.split())}
        if line.pop("split", None if only_marked else split) == split:
            try:
                line = checked_line(line)
                if check:
                    check(line["prompt"], line)
            except ValueError as error:
                raise ValueError(f"prompts: line {number} of {path}: {error}") from error
            found.append(line)
        else:
            other = True
    if not found:
        raise ValueError(f"prompts: {path} has none" + (f" with the split {split}" if other else ""))
    return found


def _json_line(path: Path, number: int, content: str) -> dict:
    try:
        line = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"prompts: line {number} of {path} is not JSON ({error})") from error
    if not isinstance(line, dict) or not isinstance(line.get("prompt"), str) or not line["prompt"].strip():
        raise ValueError(f'prompts: line {number} of {path} has no "prompt" that is a text')
    metadata = line.pop("metadata", None) or {}
    if not isinstance(metadata, dict):
        raise ValueError(f'prompts: "metadata" in line {number} of {path} is not a JSON object')
    return {**metadata, **line}
