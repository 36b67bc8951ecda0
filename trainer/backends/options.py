"""What a pipeline folder does not tell."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from common.settings import Settings, option

OPTIONS_FILE = "likestep.json"
LONGEST = 65_536  # bytes of it


@dataclass(frozen=True)
class ModelOptions(Settings):
    """`likestep.json` beside `model_index.json`."""

    size: int = option(0, "Pixels of an image's side; 0 is the family's own.", low=0, high=8192)
    hub_id: str = option("", "The model's name on the Hugging Face hub, for the cards of its versions.")
    license: str = option("", "The license of its versions, an identifier of the hub's, for their cards.")
    distilled: bool = option(False, "Guidance is distilled into the model, so its teacher cannot be guided.")
    guidance: float = option(
        0.0, "The scale that is given to a model with embedded guidance; 0 is the family's own.", low=0, high=100
    )

    @classmethod
    def read(cls, folder: Path) -> ModelOptions:
        """The folder's options, or the defaults. Raises ValueError, naming the file, when they cannot be used."""
        path = folder / OPTIONS_FILE
        if not path.exists():
            return cls()
        try:
            if path.stat().st_size > LONGEST:
                raise ValueError(f"it has more than {LONGEST:,} bytes")
            values = json.loads(path.read_text())
            if not isinstance(values, dict):
                raise ValueError("it is not a JSON object")
            return cls.from_json(values)
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{path}: {error}") from error
