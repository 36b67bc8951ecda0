"""Whether several generate workers feed one project at linear speed: groups a minute of 1, 2, 4, … of them.

    python -m bench.load.workers --workers 1 2 4 8

Each worker is a process that runs the real task for one queued group after another: it claims the group's row, waits as
long as a device would compute (`--device-seconds`), writes a trajectory and images of the demo's size, and completes the
row. So what workers share is real, PostgreSQL, the data folder and notices over Redis, and the devices, which they do not
share, are not. With `--sampled` the demo model makes the images on one core a worker, which needs as many cores as workers.
It starts its own servers in temporary folders and leaves nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time

from bench.harness import Run, add_work, keep, markdown, told
from bench.load.assignment import prepare

SIZE, PIXELS, STEPS = 8, 128, 4
LATENT = (8, 16, 16)


def stand_in(device_seconds: float):
    """In place of sampling: what it leaves, after the time that it takes."""
    import numpy as np
    from PIL import Image
    from safetensors.numpy import save

    from webapp.labelling import pictures
    from webapp.lib import paths, storage

    trajectory = save({"trajectory": np.zeros((SIZE, STEPS + 1, *LATENT), np.float16)})
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (PIXELS, PIXELS, 3), np.uint8))

    def sample(group) -> dict:
        time.sleep(device_seconds)
        storage.store().write(paths.trajectory(group.project_id, group.pk), trajectory)
        for i in range(group.size):
            pictures.write(paths.image(group.project_id, group.pk, i), image)
        return {"sizes": [image.size] * group.size}

    return sample


def work(project: int, start: float, seconds: float, device_seconds: float, sampled: bool, made) -> None:
    """Generate groups of the project from `start` on; `made` gets how many were completed in time."""
    from django.db import connections

    from webapp.labelling.models import Group, GroupState
    from workers import tasks

    connections.close_all()  # they are the parent's
    if sampled:
        import torch

        torch.set_num_threads(1)
    else:
        tasks._sample = stand_in(device_seconds)
    count = 0
    time.sleep(max(0.0, start - time.monotonic()))
    while time.monotonic() < start + seconds:
        waiting = Group.objects.filter(project=project, state=GroupState.QUEUED).order_by("pk")
        ids = list(waiting.values_list("pk", flat=True)[:50])
        tasks.generate_group(ids[os.getpid() % len(ids)])
        count += time.monotonic() < start + seconds
    made.put(count)


def measure(project: int, workers: int, a: argparse.Namespace) -> float:
    """Groups a minute of so many workers."""
    from django.db import connections

    fill(project)
    connections.close_all()
    context = multiprocessing.get_context("fork")  # what this process has imported they need not import again
    made, start = context.Queue(), time.monotonic() + 1
    arguments = (project, start, a.seconds, a.device_seconds, a.sampled, made)
    running = [context.Process(target=work, args=arguments) for _ in range(workers)]
    for process in running:
        process.start()
    total = sum(made.get(timeout=a.seconds + 300) for _ in running)
    for process in running:
        process.join()
    return 60 * total / a.seconds


def make_project():
    """With the demo's prompts."""
    from django.conf import settings

    from trainer.demo.scenes.prompts import prompts
    from webapp.campaigns.services import create_project

    return create_project(
        "workers",
        "Workers",
        model_dir=str(settings.LIKESTEP_MODEL_DIR),
        student_dir=str(settings.LIKESTEP_STUDENT_DIR),
        prompts=[{"prompt": row.prompt} for row in prompts("train")[:200]],
        group_size=SIZE,
        ready_target=1000,
    )


def fill(project: int) -> None:
    """Queue groups, as housekeeping does, until there are enough for a measurement."""
    from webapp.labelling import generation

    while generation.top_up(project):
        pass


def table(lines: list[dict]) -> str:
    """Markdown: groups a minute, and the share of what as many times one worker make."""
    one = next(line["groups_a_minute"] for line in lines if line["workers"] == 1)
    rows = [
        (
            f"{line['workers']}",
            f"{line['groups_a_minute']:.0f}",
            f"{line['groups_a_minute'] / line['workers'] / one:.0%}",
        )
        for line in lines
    ]
    return markdown(("workers", "groups a minute", "of linear"), rows)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement (default: %(default)s)")
    parser.add_argument(
        "--device-seconds", type=float, default=5.0, help="a group takes a device (default: %(default)s)"
    )
    parser.add_argument("--sampled", action="store_true", help="by the demo model, a core a worker")
    add_work(parser, "workers")
    a = parser.parse_args()
    stop = prepare(sqlite=False)
    try:
        project, lines = make_project(), []
        for workers in a.workers:
            found = {"workers": workers, "groups_a_minute": measure(project.pk, workers, a)}
            lines.append(keep(a.work, Run.made_here(f"{workers} workers", None, told(a, "workers"), found)))
        print(table(lines))
    finally:
        for end in stop:
            end()


if __name__ == "__main__":
    main()
