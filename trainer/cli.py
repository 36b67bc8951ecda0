"""The trainer's commands: `likestep COMMAND --help`, or `python -m trainer COMMAND --help`."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from safetensors import SafetensorError

from common import places
from common.files import write_image
from common.numbers import whole_between
from common.settings import (
    AutoencoderSettings,
    DistillSettings,
    MemorySettings,
    PretrainSettings,
    Settings,
    SettingsError,
    TDMR1Settings,
)
from common.sizes import Size, dealt_out, largest, parse_size, parse_sizes, size_text

MODEL = places.models() / "demo"
STUDENT = MODEL.with_name("demo-student")
AFTER = MODEL.with_name("demo-after")
RUNS = Path("runs")
PICTURES = (".png", ".webp", ".jpg", ".jpeg")


def _add_settings(parser: argparse.ArgumentParser, cls: type) -> None:
    """One option a field, with the field's own help and default; one that is not given is not in the result."""
    for f in dataclasses.fields(cls):
        if f.type in ("bool", bool):
            kind = {"action": argparse.BooleanOptionalAction}
        elif f.type in ("int", "float", "str"):
            kind = {"type": {"int": int, "float": float, "str": str}[f.type]}
        else:
            continue
        text = f"{f.metadata.get('help', '')} (default: {f.default})".strip().replace("%", "%%")
        parser.add_argument(f"--{f.name.replace('_', '-')}", default=argparse.SUPPRESS, help=text, **kind)


def _settings(arguments: argparse.Namespace, cls: type, **start):
    """The settings of the options that were given, on top of `start`."""
    names = [f.name for f in dataclasses.fields(cls) if hasattr(arguments, f.name)]
    values = start | {name: getattr(arguments, name) for name in names}
    return cls.from_json(values) if issubclass(cls, Settings) else cls(**values)


def _preset(arguments: argparse.Namespace) -> dict:
    """The paper's settings, where they were asked for."""
    return TDMR1Settings.paper(arguments.preset).to_json() if arguments.preset else {}


def whole(low: int, high: int) -> Callable[[str], int]:
    """The type of an option that takes whole numbers from `low` to `high`."""

    def number(text: str) -> int:
        found = whole_between(text, low, high)
        if found is None:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number from {low:,} to {high:,}")
        return found

    return number


count = whole(1, 1_000_000)
seed = whole(0, 2**63 - 1)


def picture(text: str) -> Path:
    """The type of an option that names a picture to write: known before anything is sampled for it."""
    if Path(text).suffix.lower() not in PICTURES:
        raise argparse.ArgumentTypeError(f"{text!r} must end in one of {', '.join(PICTURES)}")
    return Path(text)


def size(text: str) -> Size:
    """The type of an option that takes a size in pixels."""
    return _sizes(parse_size, text)


def sizes(text: str) -> tuple[Size, ...]:
    """The same of several, separated by commas."""
    return _sizes(parse_sizes, text)


def _sizes(parse: Callable, text: str):
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _write(image, path: Path) -> None:
    write_image(path, image, path.suffix.lower().lstrip(".").replace("jpg", "jpeg"))


def check_device(text: str) -> None:
    """Raise ValueError unless the device is there."""
    if text == "cpu":
        return
    import torch

    kind, _, number = text.partition(":")
    if kind == "cuda" and (not number or number.isdecimal()) and int(number or 0) < torch.cuda.device_count():
        return
    if text == "mps" and torch.backends.mps.is_available():
        return
    have = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    raise ValueError(f"device: {text!r} is not here; this machine has {', '.join(have)}")


def _tags(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed meanwhile; a second one stops at once."""
    asked = threading.Event()

    def ask(number, frame) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        print("stopping after this update, with a checkpoint; Ctrl-C again stops now", file=sys.stderr)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def draw(a: argparse.Namespace) -> None:
    """Draw example scenes of a split as one picture."""
    from trainer.demo.scenes.draw import draw as draw_scene
    from trainer.demo.scenes.draw import sample_scene
    from trainer.demo.scenes.prompts import prompts
    from trainer.evaluate import image_grid

    rng = random.Random(a.seed)
    rows = [rng.choice(prompts(a.split)) for _ in range(a.count)]
    _write(image_grid([draw_scene(sample_scene(r.metadata, rng)) for r in rows], a.columns), a.output)
    for r in rows:
        print(r.prompt)


def autoencoder(a: argparse.Namespace) -> None:
    """Train the demo autoencoder."""
    from trainer.demo.autoencoder import train_autoencoder

    scores = train_autoencoder(_settings(a, AutoencoderSettings), a.work, a.work / "vae", device=a.device)
    print(json.dumps(scores, indent=1))


def pretrain(a: argparse.Namespace) -> None:
    """Train the demo base model by flow matching on drawn scenes."""
    from trainer.demo.pretrain import pretrain as run

    settings = _settings(a, PretrainSettings)
    print(json.dumps(run(settings, a.vae, a.work, a.work / "model", start=a.start, device=a.device)))


def distill(a: argparse.Namespace) -> None:
    """Distil a base model into a first few-step student (TDM)."""
    from common.prompt_files import read_prompts
    from trainer.demo.scenes.prompts import sample_training_prompt
    from trainer.methods.distill import DistillStopped
    from trainer.methods.distill import distill as run

    own = [line["prompt"] for line in read_prompts(a.prompts, split="train", model=a.model)] if a.prompts else None

    def draw(rng: random.Random) -> str:
        return rng.choice(own) if own else sample_training_prompt(rng).prompt

    settings = _settings(a, DistillSettings)
    memory = _settings(a, MemorySettings)
    with _stopping() as should_stop:
        try:
            options = {"device": a.device, "memory": memory, "drawn_from": own, "start": a.start, "sizes": a.sizes}
            result = run(a.model, draw, settings, a.work, a.work / "student", should_stop=should_stop, **options)
        except DistillStopped as stopped:
            print(stopped, file=sys.stderr)
            raise KeyboardInterrupt from stopped
    print(json.dumps(result))


def train(a: argparse.Namespace) -> None:
    """One round of TDM-R1, from labelled groups (--groups) or from an oracle (--oracle)."""
    from common.prompt_files import read_prompts
    from trainer.demo.scenes.prompts import TAGS, WORD, evaluation_prompts, prompts
    from trainer.oracles import get_oracle
    from trainer.rounds import RoundCancelled, RoundSpec, run_round

    if not (a.oracle or a.groups):
        raise ValueError("one of the arguments --oracle --groups is required")
    settings = _settings(a, TDMR1Settings, **_preset(a))
    validation_oracle = a.validation_oracle or (a.oracle if a.prompts else "demo")
    if a.prompts:
        check = get_oracle(a.oracle).check if a.oracle else None
        train_prompts = read_prompts(a.prompts, split="train", check=check, model=a.model)
        check = get_oracle(validation_oracle).check if validation_oracle else None
        judge = {"split": "validation", "check": check, "model": a.model}
        if a.validation_prompts:
            validation = read_prompts(a.validation_prompts, **judge)
        else:
            try:
                validation = read_prompts(a.prompts, only_marked=True, **judge)
            except ValueError as error:
                raise ValueError(f"{error}; give the round's judge a file with --validation-prompts") from error
    else:
        tags = {"scenes": TAGS, "ocr": (WORD,)}.get(a.oracle, (*TAGS, WORD))
        per_tag = -(-settings.validation_images // len(tags))
        train_prompts = [p.metadata for p in prompts("train", tags=tags)]
        validation = [p.metadata for p in evaluation_prompts("validation", per_tag, tags=tags)]
    spec = RoundSpec(
        model_dir=str(a.model),
        parent_dir=str(a.student),
        work_dir=str(a.work),
        output_dir=str(a.work / "version"),
        train_prompts=train_prompts,
        validation=validation,
        validation_oracle=validation_oracle,
        groups_file=str(a.groups) if a.groups else None,
        reward_oracle=a.oracle,
        sizes=[size_text(size) for size in a.sizes],
        inputs=str(a.inputs) if a.inputs else None,
        settings=settings.to_json(),
        memory=_settings(a, MemorySettings).to_json(),
    )

    def show(progress) -> None:
        keys = (
            "reward",
            "validation_reward",
            "validation_geneval",
            "second_recognition",
            "margin",
            "distance",
            "active",
        )
        text = " ".join(f"{k} {progress.metrics[k]:.3f}" for k in keys if k in progress.metrics)
        print(f"{progress.phase} {progress.step}/{progress.total} {progress.seconds_left:.0f}s left {text}", flush=True)
        if progress.alarm:
            print(f"alarm: {progress.alarm}", flush=True)

    with _stopping() as should_stop:
        try:
            result = run_round(spec, on_progress=show, should_stop=should_stop, device=a.device, trackers=a.trackers)
        except RoundCancelled as stopped:
            print(stopped, file=sys.stderr)
            raise KeyboardInterrupt from stopped
    print(json.dumps(dataclasses.asdict(result), indent=1))


def plan(a: argparse.Namespace) -> None:
    """Estimate memory and time of a round from shapes, without loading weights; say what to turn on so that it fits."""
    from trainer.plan import GB, advise, options_text, parse_gpu, table

    gigabytes, tflops, like = parse_gpu(a.gpu)
    tflops = a.tflops or tflops
    settings, memory = _settings(a, TDMR1Settings, **_preset(a)), _settings(a, MemorySettings)
    if not memory.shard and (settings.prompts_per_update % a.processes or settings.student_batch < a.processes):
        raise SettingsError(
            f"processes: {settings.prompts_per_update} prompts and {settings.student_batch} images an update cannot be "
            f"dealt out to {a.processes}; change prompts_per_update or student_batch"
        )
    share = 1 if memory.shard else a.processes  # processes that shard make the whole update each
    mine = dataclasses.replace(
        settings,
        prompts_per_update=settings.prompts_per_update // share,
        student_batch=-(-settings.student_batch // share),
    )
    print(
        f"{a.model} on {a.processes} × {gigabytes:g} GB, {tflops:g} TFLOP/s ({'given' if a.tflops else f'as {like}'})"
    )

    def tell(tried: MemorySettings) -> None:
        print(f"does not fit; trying {options_text(tried)}", file=sys.stderr)

    if memory.shard and a.processes == 1:
        raise SettingsError("shard: there is one process; give --processes, or turn shard off")
    how = {"size": largest(a.sizes), "tell": tell, "processes": a.processes}
    asked, fits = advise(a.model, mine, memory, gigabytes * GB, **how)
    print(f"\nas asked for: {options_text(memory) or 'defaults'}\n\n{table(asked, tflops)}")
    if fits is None:
        print(
            f"\nIt does not fit into {gigabytes:g} GB under any options: lower --student-batch, or take a larger GPU."
        )
    elif fits is asked:
        print(f"\nIt fits into {gigabytes:g} GB.")
    else:
        print(
            f"\nIt does not fit into {gigabytes:g} GB. It does with: {options_text(fits.memory)}\n\n{table(fits, tflops)}"
        )


def generate(a: argparse.Namespace) -> None:
    """Sample images of a prompt into one picture."""
    from trainer.evaluate import image_grid
    from trainer.prompts import Instruction
    from trainer.sampler import Sampler

    sampler = Sampler(a.model, device=a.device, memory=_settings(a, MemorySettings))
    sampler.use_version(None if a.base else a.student)
    prompt = Instruction(a.prompt, a.input) if a.input else a.prompt
    group = sampler.sample_group(prompt, range(a.seed, a.seed + a.count), size=a.size)
    _write(image_grid(group.images, a.columns), a.output)


def evaluate(a: argparse.Namespace) -> None:
    """Score the base, a student or a round's surrogate on held-out prompts by any oracle."""
    from common.prompt_files import read_prompts
    from trainer.backends import load_backend
    from trainer.demo.scenes.prompts import TAGS, WORD, evaluation_prompts
    from trainer.evaluate import evaluate as run
    from trainer.evaluate import image_grid, write_geneval
    from trainer.methods.tdm_r1 import TAUGHT_GUIDANCE, TAUGHT_STEPS
    from trainer.oracles import get_oracle
    from trainer.prompts import Prompt, with_inputs
    from trainer.sampler import Sampler
    from trainer.surrogate_file import load_surrogate

    oracle = get_oracle(a.oracle)
    if a.prompts:
        found = read_prompts(a.prompts, split=a.split, check=oracle.check, model=a.model)
        lines = with_inputs([line for line in found if not a.tags or line.get("tag") in a.tags], a.inputs)
        rows = [Prompt.of_line(m, a.split) for m in lines for _ in range(a.repeats)]
    else:
        rows = evaluation_prompts(a.split, a.per_tag, tags=a.tags or (*TAGS, WORD))
    if not rows:
        raise ValueError("prompts: none is left of this split and these tags")
    if a.sizes:
        lines = dealt_out([row.metadata for row in rows], a.sizes)
        rows = [dataclasses.replace(row, metadata=line) for row, line in zip(rows, lines, strict=True)]
    memory, steps, guidance = _settings(a, MemorySettings), a.steps or 4, a.guidance or 1.0
    if a.surrogate:
        backend = load_backend(a.model, device=a.device, memory=memory)
        method, steps, guidance = load_surrogate(backend, a.surrogate), a.steps or TAUGHT_STEPS, a.guidance
        guidance = guidance or (1.0 if backend.distilled else TAUGHT_GUIDANCE)
        method.bf16 = a.bf16
        how = {"sample": partial(method.sample_taught, guidance=guidance, strength=a.strength)}
    else:
        sampler = Sampler(a.model, device=a.device, memory=memory)
        sampler.use_version(None if a.base else a.student)
        backend, how = sampler.backend, {"guidance": guidance}
    result = run(backend, rows, oracle, steps=steps, bf16=a.bf16, batch=a.batch, **how)
    if a.images:
        write_geneval(a.images, rows, result, tags=a.tags or TAGS)
    if a.picture and a.prompts:
        _write(image_grid(result.images[:64], min(8, len(result.images))), a.picture)
    elif a.picture:
        shown = [i for k, i in enumerate(result.images) if k % a.per_tag < 8]
        _write(image_grid(shown, min(8, a.per_tag)), a.picture)
    conditions = {
        "model": "base" if a.base else str(a.student),
        "oracle": oracle.name,
        "split": a.split,
        "images": len(rows),
        "steps": steps,
        "guidance": guidance,
        "nfe": steps * (2 if guidance > 1 else 1),
    }
    if a.surrogate:  # a pass of its own, or the head's with its gradient, beside the base's
        conditions |= {"model": str(a.surrogate), "strength": a.strength, "nfe": conditions["nfe"] + steps}
    print(json.dumps({**conditions, **{k: round(v, 4) for k, v in result.scores.items()}}))


def export(a: argparse.Namespace) -> None:
    """Write a version as a LoRA that diffusers and ComfyUI read, or merged into a whole pipeline, with a model card."""
    from trainer.export import About, export_lora, export_merged

    write = export_merged if a.merged else export_lora
    about = About(a.base_model, a.license, a.title)
    print(write(a.model, a.student, a.output, dtype=a.dtype, about=about))


def share(a: argparse.Namespace) -> None:
    """Send a version as a LoRA with its card and a ComfyUI workflow to a repository of the Hugging Face hub."""
    from common.hub import HubError
    from trainer.export import About
    from trainer.export import share as run

    about = About(a.base_model, a.license, a.title)
    try:
        print(run(a.model, a.student, a.repository, private=not a.public, dtype=a.dtype, about=about))
    except HubError as error:
        raise OSError(errno.EIO, str(error), a.repository) from error


def convert_ema(a: argparse.Namespace) -> None:
    """Write the TDM authors' EMA file, a list of tensors without names, as a standard diffusers LoRA."""
    from trainer.convert_ema import convert_ema as run

    print(run(a.file, a.model, a.output, alpha=a.alpha, targets=a.targets))


def release(a: argparse.Namespace) -> None:
    """Copy trained demo weights to models/ in fp16."""
    from trainer.demo.release import release_base, release_round, release_student

    if a.base:
        release_base(a.base, MODEL)
    if a.from_student:
        release_student(MODEL, a.from_student, STUDENT)
    if a.from_round:
        release_round(MODEL, a.from_round, AFTER, parent=STUDENT.name)


def build_parser(program: str = "python -m trainer") -> argparse.ArgumentParser:
    """Every command with its options, for the help of `program`."""
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(function) -> argparse.ArgumentParser:
        name = function.__name__.replace("_", "-")
        sub = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(run=function)
        return sub

    def device_option(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … (default: %(default)s)")

    def model_options(sub: argparse.ArgumentParser, *, student: bool = True) -> None:
        sub.add_argument("--model", type=Path, default=MODEL, help="diffusers pipeline folder (default: %(default)s)")
        device_option(sub)
        if student:
            sub.add_argument("--student", type=Path, default=STUDENT, help="LoRA folder (default: %(default)s)")

    def memory_options(sub: argparse.ArgumentParser) -> None:
        _add_settings(
            sub.add_argument_group("memory", "what fits a model into a machine; see docs/memory.md"), MemorySettings
        )

    def preset_option(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--preset", choices=("geneval", "ocr", "preference"), help="start from the paper's settings")

    def sizes_option(sub: argparse.ArgumentParser, what: str) -> None:
        sub.add_argument("--sizes", type=sizes, default=(), metavar="WxH,…", help=f"{what}; the model's own by default")

    def inputs_option(sub: argparse.ArgumentParser) -> None:
        what = "folder of the input images (PNG, WebP) that lines of prompts and groups name as input_image"
        sub.add_argument("--inputs", type=Path, help=what)

    def work_option(sub: argparse.ArgumentParser, name: str) -> None:
        sub.add_argument("--work", type=Path, default=RUNS / name, help="checkpoints and logs; resumed if there")
        sub.add_argument("--resume", action="store_true", help="resuming is what happens; accepted for clarity")

    sub = command(draw)
    sub.add_argument("output", type=picture)
    sub.add_argument("--split", default="train", choices=("train", "validation", "test"))
    sub.add_argument("--count", type=count, default=48)
    sub.add_argument("--columns", type=count, default=8)
    sub.add_argument("--seed", type=seed, default=0)

    sub = command(autoencoder)
    work_option(sub, "autoencoder")
    device_option(sub)
    _add_settings(sub, AutoencoderSettings)

    sub = command(pretrain)
    work_option(sub, "pretrain")
    device_option(sub)
    sub.add_argument("--vae", type=Path, default=RUNS / "autoencoder" / "vae")
    sub.add_argument("--start", type=Path, help="pipeline folder whose weights to start from; random ones by default")
    _add_settings(sub, PretrainSettings)

    sub = command(distill)
    model_options(sub, student=False)
    work_option(sub, "distill")
    sub.add_argument("--prompts", type=Path, help="JSONL or text file of prompts; the demo's by default")
    sub.add_argument("--start", type=Path, help="LoRA folder of the student to go on from; the bare base by default")
    sizes_option(sub, "sizes in pixels, of which each rollout has one")
    _add_settings(sub, DistillSettings)
    memory_options(sub)

    sub = command(train)
    model_options(sub)
    work_option(sub, "train")
    sub.add_argument("--oracle", help="any oracle, see docs/oracles.md; scenes, ocr and demo know the demo's prompts")
    sub.add_argument(
        "--groups", type=Path, help="groups.jsonl of labelled groups; beside an oracle only with --surrogate head"
    )
    sub.add_argument("--prompts", type=Path, help="JSONL or text file of prompts; the demo's by default")
    sub.add_argument(
        "--validation-prompts",
        type=Path,
        help="lines of --prompts with that split by default",
    )
    sizes_option(sub, "sizes in pixels such as 1024x1024,1152x896, dealt out among prompts that name none")
    inputs_option(sub)
    sub.add_argument("--validation-oracle", help="what scores validation images; --oracle by default")
    preset_option(sub)
    sub.add_argument("--trackers", help="tensorboard, wandb, mlflow, comma-separated, or none (LIKESTEP_TRACKERS)")
    _add_settings(sub, TDMR1Settings)
    memory_options(sub)

    sub = command(plan)
    sub.add_argument("--model", type=Path, default=MODEL, help="diffusers pipeline folder (default: %(default)s)")
    sub.add_argument("--gpu", required=True, help="its memory, such as 24GB, or a name such as rtx4090, l4, a100, h100")
    sub.add_argument(
        "--tflops", type=float, help="dense bf16 TFLOP/s, where they are not those of the GPU's name or size"
    )
    sizes_option(sub, "sizes in pixels of the round's images, of which the largest decides")
    sub.add_argument("--processes", type=count, default=1, help="GPUs that share the round (default: %(default)s)")
    preset_option(sub)
    _add_settings(sub, TDMR1Settings)
    memory_options(sub)

    sub = command(generate)
    model_options(sub)
    sub.add_argument("prompt")
    sub.add_argument("output", type=picture)
    sub.add_argument("--base", action="store_true", help="the bare base model")
    sub.add_argument("--count", type=count, default=8)
    sub.add_argument("--columns", type=count, default=4)
    sub.add_argument("--seed", type=seed, default=0)
    sub.add_argument("--input", type=Path, help="input image (PNG, WebP) that the prompt changes, for FLUX.2 klein")
    sub.add_argument("--size", type=size, metavar="WxH", help="in pixels, such as 1152x896; the model's own by default")
    memory_options(sub)

    sub = command(evaluate)
    model_options(sub)
    sub.add_argument("--base", action="store_true", help="the bare base model")
    sub.add_argument("--split", default="validation", choices=("validation", "test"))
    sub.add_argument("--oracle", default="demo", help="any oracle, see docs/oracles.md (default: %(default)s)")
    sub.add_argument("--prompts", type=Path, help="JSONL or text file of prompts; the demo's by default")
    sub.add_argument("--repeats", type=count, default=1, help="images a prompt of --prompts; GenEval has 4")
    sub.add_argument(
        "--images",
        type=Path,
        help="folder for the images and results.jsonl as GenEval lays them out; that has GenEval's six tags, or --tags",
    )
    sizes_option(sub, "sizes in pixels, dealt out among prompts that name none")
    inputs_option(sub)
    sub.add_argument("--per-tag", type=count, default=48, help="the demo's prompts a tag")
    sub.add_argument("--tags", type=_tags, help="comma-separated; all by default")
    sub.add_argument("--batch", type=count, default=64, help="images sampled at once (default: %(default)s)")
    sub.add_argument(
        "--surrogate",
        type=Path,
        help="folder of a round's version whose surrogate is sampled instead: the base at --guidance and what it learned",
    )
    sub.add_argument("--strength", type=float, default=1.0, help="of what the surrogate learned (default: %(default)s)")
    sub.add_argument("--steps", type=count, help="4 by default, of a surrogate 20")
    sub.add_argument("--guidance", type=float, help="1 by default, of a surrogate 4")
    sub.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    sub.add_argument("--picture", type=picture)
    memory_options(sub)

    sub = command(release)
    sub.add_argument("--base", type=Path, help="pipeline folder that pretrain wrote")
    sub.add_argument("--from-student", type=Path, help="LoRA folder that distill wrote")
    sub.add_argument("--from-round", type=Path, help="work folder of a finished round, shown by the demo as its first")

    def card_options(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--dtype", default="fp32", choices=("fp32", "fp16"), help="(default: %(default)s)")
        sub.add_argument("--base-model", default="", help="hub id of the base model, for the card")
        sub.add_argument(
            "--license", default="", help="identifier of the hub's, for the card; the base model's by default"
        )
        sub.add_argument("--title", default="", help="the card's title; the version's folder by default")

    sub = command(export)
    model_options(sub)
    sub.add_argument("output", type=Path)
    sub.add_argument("--merged", action="store_true", help="a whole pipeline with the weights changed")
    card_options(sub)

    sub = command(share)
    model_options(sub)
    sub.add_argument("repository", help="OWNER/NAME; the token is HF_TOKEN of the environment")
    sub.add_argument("--public", action="store_true", help="a repository that is made is for everybody to see")
    card_options(sub)

    sub = command(convert_ema)
    sub.add_argument("file", type=Path, help="the authors' file, for example tdm_sd3-5_lora.ckpt")
    sub.add_argument("output", type=Path, help="LoRA folder to write")
    sub.add_argument("--model", type=Path, required=True, help="pipeline folder of the model it was made for")
    sub.add_argument("--alpha", type=count, default=64, help="LoRA alpha it was trained with (default: %(default)s)")
    sub.add_argument("--targets", type=_tags, help="comma-separated modules it was trained on; the family's by default")
    return parser


def main(argv: list[str] | None = None, program: str = "python -m trainer") -> int:
    """Run one command. What a user can mend is one sentence on stderr, with status 2 where the call is wrong and 1 where
    something in its way failed; 130 after Ctrl-C."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    a = build_parser(program).parse_args(argv)
    goes_on = f"; what is saved in {a.work} goes on with the same command" if hasattr(a, "work") else ""
    try:
        check_device(getattr(a, "device", "cpu"))
        a.run(a)
    except KeyboardInterrupt:
        print(f"stopped{goes_on}", file=sys.stderr)
        return 130
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or 'file'}: {error.strerror or error}{goes_on}", file=sys.stderr)
        return 1
    except SafetensorError as error:  # safetensors tells of a full disk by its own type
        print(f"error: {error}{goes_on}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        from trainer.oracles.base import OracleError  # imported when something failed: a command starts without it

        if not isinstance(error, OracleError):
            raise
        print(f"error: {error}{goes_on}", file=sys.stderr)
        return 1
    return 0
