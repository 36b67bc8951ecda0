"""A round's surrogate as a file beside its version, so that what it knows can be looked at."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save

from common.files import write_atomic
from common.settings import TDMR1Settings
from trainer.backends import Backend
from trainer.finite import first_not_finite
from trainer.methods import method_class
from trainer.methods.base import Method
from trainer.methods.tdm_r1 import TDMR1

SURROGATE_NAME = "surrogate.safetensors"
KEPT = ("surrogate", "head_members")  # settings that say what it is
# Nothing is trained here, so what a distilled model or a head would refuse of the defaults does not matter.
UNGUIDED = {"guidance": 1.0, "rl_cfg": 1.0, "head_norm": "posterior"}


def save_surrogate(method: Method, folder: Path) -> None:
    """Write the method's surrogate into a version's folder; nothing where the method has none."""
    if not isinstance(method, TDMR1):
        return
    tensors = {
        f"{name}/{key}": value.cpu().contiguous()
        for name, part in method.surrogate_parts().items()
        for key, value in part.state_dict().items()
    }
    about = {name: getattr(method.settings, name) for name in KEPT} | {"rank": method.rank, "alpha": method.alpha}
    if not method.explicit:
        about["surrogate"] = "likelihood"  # whatever a method that reads no such setting was given
    write_atomic(folder / SURROGATE_NAME, save(tensors, metadata={"settings": json.dumps(about)}))


def load_surrogate(backend: Backend, folder: Path) -> TDMR1:
    """The method with the surrogate that `save_surrogate` wrote, on a backend without adapters. Raises ValueError, naming
    the file, when it cannot be read or is of another model."""
    file = folder / SURROGATE_NAME
    try:
        with safe_open(file, "pt") as opened:
            settings = TDMR1Settings.from_json(json.loads(opened.metadata()["settings"]) | UNGUIDED)
        tensors = load(file.read_bytes())
        if name := first_not_finite(tensors.items()):
            raise ValueError(f"{name}: a number is not finite")
        method = method_class(settings)(backend, settings)
        for name, part in method.surrogate_parts().items():
            prefix = f"{name}/"
            part.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    except (SafetensorError, OSError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"surrogate: {file} cannot be read ({error})") from error
    return method
