"""The project `stars` with a model whose images have a known size."""

import json

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from webapp.imports import files, services


@pytest.fixture
def stars(project, tmp_path):
    """Images of 64 pixels, groups of four."""
    for name, about in {
        "model_index.json": {"_class_name": "StableDiffusion3Pipeline"},
        "transformer/config.json": {"sample_size": 8},
        "vae/config.json": {"block_out_channels": [8, 8, 8, 8]},
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(about))
    return project


@pytest.fixture
def bring(stars, boss):
    """bring(zip or {name: bytes}, **choices): the import, and its report as {name: (outcome, sentence)}."""

    def send(content, **choices):
        given = content.items() if isinstance(content, dict) else [("own.zip", content)]
        uploaded = [SimpleUploadedFile(name, data) for name, data in given]
        from webapp.imports.reading import Choices
        from webapp.imports.report import Line

        done = services.bring_in(
            stars, "own", lambda reader: files.read(reader, uploaded), choices=Choices(**choices), by=boss
        )
        lines = [Line.from_json(value) for value in done.report]
        return done, {line.name: (str(line.outcome), line.sentence) for line in lines}

    return send
