"""Model cards: what a version is, where it came from, what it learned from and how it scores. Standard library only.

The front matter is the YAML that model hubs read. Lineage comes from the `version.json` that a round leaves beside each
LoRA, or, in the web app, from the database.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from common.round_folder import VERSION
from common.settings import TDMR1Settings

LORA_NAME = "pytorch_lora_weights.safetensors"
EXAMPLE = "a photo of a cat"  # prompt
OWN_GUIDANCE = {"ZImagePipeline": 0.0}  # stock pipelines whose "no guidance" is not 1
EMBEDDED_GUIDANCE = {
    "FluxPipeline": 3.5,
    "Flux2Pipeline": 4.0,
}  # what is given to a network that takes its scale as an input
READERS = {  # folder and default number of tokens of the tokenizer that limits a prompt
    "StableDiffusion3Pipeline": ("tokenizer_3", 256),
    "FluxPipeline": ("tokenizer_2", 512),
    "Flux2Pipeline": ("tokenizer", 512),
}
METHODS = {  # what a card calls each choice of the setting `method`
    "tdm_r1": "TDM-R1 ([arXiv 2603.07700](https://arxiv.org/abs/2603.07700))",
    "dgpo": "DGPO ([arXiv 2510.08425](https://arxiv.org/abs/2510.08425))",
    "task_vector": "a task vector ([arXiv 2212.04089](https://arxiv.org/abs/2212.04089)) that a surrogate learned by the "
    "loss of DiffusionNFT ([arXiv 2509.16117](https://arxiv.org/abs/2509.16117))",
    "negative_aware": "DiffusionNFT ([arXiv 2509.16117](https://arxiv.org/abs/2509.16117))",
    "best_of_group": "flow matching on the best image of each group",
    "flow_grpo": "Flow-GRPO ([arXiv 2505.05470](https://arxiv.org/abs/2505.05470))",
}


@dataclass(frozen=True)
class Made:
    """How one version was made. The first student has no round: no settings, labels or scores."""

    name: str
    sha256: str = ""
    updates: int = 0
    settings: Mapping = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)  # by source: "people", or an oracle's name
    scores_before: Mapping[str, float] = field(default_factory=dict)
    scores_after: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Base:
    """The pipeline a LoRA is for: `name` is a hub id, or the folder's own name; `license` an identifier of the hub's, empty
    where it is not known."""

    name: str
    pipeline: str
    shift: float | None = None
    flow: bool = True  # whether its scheduler takes the times a student was trained on
    text_tokens: int | None = None  # where the pipeline's default would be too many
    size: int | None = None  # pixels of a side, where it is not the pipeline's own
    pixels: int = 1024  # of a side
    license: str = ""
    guidance: float | None = None  # the scale that is embedded, where the network takes one

    @property
    def hub_id(self) -> str:
        """The name, where it is one of the hub's."""
        return self.name if re.fullmatch(r"[\w.-]+/[\w.-]+", self.name) else ""

    @classmethod
    def of(cls, model_dir: Path, name: str = "", license: str = "") -> Base:
        """Read from a pipeline folder; without one only the name is known. What is not given is what the folder's
        `likestep.json` says."""
        options = _json(model_dir / "likestep.json")
        scheduler = _json(model_dir / "scheduler" / "scheduler_config.json")
        pipeline = _json(model_dir / "model_index.json").get("_class_name", "DiffusionPipeline")
        pixels = options.get("size") or _own_pixels(model_dir)
        return cls(
            name or options.get("hub_id") or model_dir.name,
            pipeline,
            _shift(scheduler, pixels, pipeline),
            "Flow" in scheduler.get("_class_name", "Flow"),
            _text_tokens(model_dir, pipeline),
            options.get("size") or None,
            pixels,
            license or options.get("license", ""),
            _embedded_guidance(model_dir, pipeline, options),
        )


def _json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _own_pixels(model_dir: Path) -> int:
    """A side of the images that the network was trained on, where its config tells; else the families' usual 1024."""
    network = _json(model_dir / "transformer" / "config.json") or _json(model_dir / "unet" / "config.json")
    halvings = len(_json(model_dir / "vae" / "config.json").get("block_out_channels", (0,) * 4)) - 1
    side = network.get("sample_size")
    return side * 2**halvings if isinstance(side, int) and side else 1024


def _shift(scheduler: dict, pixels: int, pipeline: str) -> float | None:
    """The shift of the times at a size; None where it cannot be told, as in FLUX.2, whose own changes with the steps."""
    if not scheduler.get("use_dynamic_shifting"):
        return scheduler.get("shift")
    if pipeline.startswith("Flux2"):
        return None
    low, high = scheduler.get("base_shift", 0.5), scheduler.get("max_shift", 1.15)
    fewest, most = scheduler.get("base_image_seq_len", 256), scheduler.get("max_image_seq_len", 4096)
    return math.exp(low + (high - low) * ((pixels / 16) ** 2 - fewest) / (most - fewest))  # a token is 16 × 16 pixels


def _embedded_guidance(model_dir: Path, pipeline: str, options: dict) -> float | None:
    if not _json(model_dir / "transformer" / "config.json").get("guidance_embeds"):
        return None
    return options.get("guidance") or EMBEDDED_GUIDANCE.get(pipeline)


def _text_tokens(model_dir: Path, pipeline: str) -> int | None:
    """Tokens of a prompt that a student was trained with, where the stock pipeline's default is another number."""
    if pipeline not in READERS:
        return None
    folder, usual = READERS[pipeline]
    most = _json(model_dir / folder / "tokenizer_config.json").get("model_max_length", usual)
    schnell = pipeline == "FluxPipeline" and not _embedded_guidance(model_dir, pipeline, {})
    most = min(most, 256 if schnell else usual)
    return most if most < usual else None


def made_by(version_dir: Path) -> Made:
    """How the version in a folder was made, by its `version.json`."""
    return made_as(version_dir.name, _json(version_dir / VERSION))


def made_as(name: str, about: dict) -> Made:
    """The same of what a `version.json` holds; what it does not tell is empty."""
    return Made(
        name,
        about.get("sha256", ""),
        about.get("steps", 0),
        about.get("settings", {}),
        about.get("labels", {}),
        about.get("scores_before", {}),
        about.get("scores_after", {}),
    )


def lineage(version_dir: Path) -> list[Made]:
    """The version, its parent, and so on to the first student; as far as the folders are there."""
    found, seen = [], set()
    folder: Path | None = version_dir
    while folder is not None and folder.resolve() not in seen:
        seen.add(folder.resolve())
        found.append(made_by(folder))
        parent = _json(folder / VERSION).get("parent")
        folder = Path(parent) if parent and Path(parent).is_dir() else None
    return found


def model_card(title: str, base: Base, versions: Sequence[Made], *, steps: int = 4, merged: bool = False) -> str:
    """README.md of an export; `versions` is the lineage, newest first."""
    newest = versions[0]
    parts = [
        _front_matter(base, versions, merged),
        f"# {title}\n\nA {steps}-step text-to-image model: {'a whole pipeline, ' if merged else 'a LoRA for '}"
        f"{'made from ' if merged else ''}`{base.name}` (`{base.pipeline}`), {_how(versions)}",
        "## Use\n\n" + _usage(base, steps, merged),
    ]
    if newest.scores_after:
        parts.append("## Scores\n\n" + _scores(newest))
    if newest.labels:
        parts.append("## Labels used\n\n" + _table(("source", "labels"), sorted(newest.labels.items())))
    rows = [
        (v.name, v.updates or "–", _count(v.labels), _score(v.scores_after), v.sha256[:16] or "–") for v in versions
    ]
    rows.append((f"{base.name} (base)", "–", "–", "–", "–"))
    columns = ("version", "updates", "labels", "reward after", "sha256 in Likestep")
    parts.append("## Lineage\n\nNewest first; each came from the one below it.\n\n" + _table(columns, rows))
    if newest.settings:
        parts.append("## Settings\n\nOf the last round, where they differ from the defaults.\n\n" + _settings(newest))
    return "\n\n".join(parts) + "\n"


def _methods(versions: Sequence[Made]) -> list[str]:
    """The methods of the rounds, first round first, each once; only rounds leave a number of updates."""
    rounds = [made for made in reversed(versions) if made.updates]
    return list(dict.fromkeys(made.settings.get("method", TDMR1Settings.method) for made in rounds))


def _how(versions: Sequence[Made]) -> str:
    """How the newest version was made, as the end of a sentence."""
    if methods := _methods(versions):
        return f"trained with {', then '.join(METHODS.get(method, method) for method in methods)} by Likestep."
    return "a first student as it was given to Likestep: no round has trained it."


def _front_matter(base: Base, versions: Sequence[Made], merged: bool) -> str:
    newest = versions[0]
    trained = [method.replace("_", "-") for method in _methods(versions)]
    tags = ["diffusers", "text-to-image", "few-step", *trained, "likestep", *([] if merged else ["lora"])]
    lines = [
        *_license(base),
        "library_name: diffusers",
        "pipeline_tag: text-to-image",
        *([f"base_model: {json.dumps(base.hub_id)}"] if base.hub_id else []),
        f"base_model_relation: {'merge' if merged else 'adapter'}",
        "widget:",
        f"- text: {json.dumps(EXAMPLE)}",
        "tags:",
        *(f"- {tag}" for tag in tags),
    ]
    if newest.scores_after:
        lines += ["model-index:", f"- name: {json.dumps(newest.name)}", "  results:", "  - task:"]
        lines += ["      type: text-to-image", "    dataset:", "      name: validation prompts of the project"]
        lines += ["      type: likestep", "    metrics:"]
        for name, value in sorted(newest.scores_after.items()):
            lines += [f"    - type: {json.dumps(name)}", f"      value: {value:.4f}"]
    return "\n".join(["---", *lines, "---"])


def _license(base: Base) -> list[str]:
    """The hub wants a license; one that is not known is the base model's, whatever that is."""
    if base.license:
        return [f"license: {json.dumps(base.license)}"]
    link = [f"license_link: https://huggingface.co/{base.hub_id}"] if base.hub_id else []
    return ["license: other", "license_name: as-the-base-model", *link]


def _usage(base: Base, steps: int, merged: bool) -> str:
    times = ", ".join(f"{1 - j / steps:g}" for j in range(steps))
    calls = [
        f"    {json.dumps(EXAMPLE)},",
        f"    num_inference_steps={steps},",
        *([f"    sigmas=[{times}],  # the steps it was trained on; the scheduler shifts them"] if base.flow else []),
        _guidance(base),
        *([f"    max_sequence_length={base.text_tokens},"] if base.text_tokens else []),
        *([f"    height={base.size},", f"    width={base.size},"] if base.size else []),
    ]
    lines = [
        "```python",
        "from diffusers import DiffusionPipeline",
        "",
        f"pipe = DiffusionPipeline.from_pretrained({json.dumps('.' if merged else base.name)})",
        *([] if merged else [f'pipe.load_lora_weights(".", weight_name="{LORA_NAME}")']),
        "image = pipe(",
        *calls,
        ").images[0]",
        "```",
    ]
    if not merged:
        shift = f" with shift {base.shift:g}" if base.shift else ""
        lines += [
            "",
            "In ComfyUI: put the file into `models/loras`, load it with strength 1, sampler `euler`, scheduler "
            f"`simple`{shift}, {steps} steps, CFG 1.",
        ]
    return "\n".join(lines)


def _guidance(base: Base) -> str:
    """The line of the call that asks for no guidance, or for the embedded one."""
    if base.pipeline == "QwenImagePipeline":
        return "    true_cfg_scale=1.0,  # none: guidance is trained in"
    if base.guidance is not None:
        return f"    guidance_scale={base.guidance},  # an input of the model, which was trained at this scale"
    own = 0.0 if base.pipeline in EMBEDDED_GUIDANCE else OWN_GUIDANCE.get(base.pipeline, 1.0)
    return f"    guidance_scale={own},  # none: guidance is trained in"


def _scores(made: Made) -> str:
    rows = [
        (name, f"{made.scores_before[name]:.3f}" if name in made.scores_before else "–", f"{value:.3f}")
        for name, value in sorted(made.scores_after.items())
    ]
    return _table(("score", "before the last round", "after"), rows)


def _settings(made: Made) -> str:
    usual = asdict(TDMR1Settings())
    rows = [(f"`{k}`", v, usual[k]) for k, v in sorted(made.settings.items()) if k in usual and v != usual[k]]
    return _table(("setting", "value", "default"), rows) if rows else "All are the defaults."


def _count(labels: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {source}" for source, n in sorted(labels.items())) or "–"


def _score(scores: Mapping[str, float]) -> str:
    return f"{scores['reward']:.3f}" if "reward" in scores else "–"


def _table(columns: Sequence[str], rows: Sequence[Sequence]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
