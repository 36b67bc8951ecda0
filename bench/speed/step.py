"""One trained TDM-R1 step (rollout, rewards, fake, surrogate, student) against a naive order of the same work.

    python -m bench.speed.step --threads 1

The naive side makes 13 evaluations of the transformer a step, each by itself: the student's pass twice on the same input
and weights, the surrogate's moving average copied into the live adapter and out again, every image's prompt encoded,
adapters beside the weights, groups without signal passed through as well, images decoded as diffusers loads the VAE, all
in fp32. Both reward every step of the student, so that both need every pass; `--settings` changes that. With the default,
which rewards the first two steps only, this trainer leaves out the passes whose term is off.

First both sides make the same steps in fp32 and their losses are compared. Then each timing runs in a process of its own,
the sides taking turns, so that the machine's drift hits them alike and each has a peak of memory of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from bench.harness import EVERY_STEP, Run, add_work, keep, told
from bench.learning.gains import oracle_spec
from bench.peaks import peak_of
from common.settings import TDMR1Settings
from trainer.advantages import group_advantages, has_signal
from trainer.backends import Conditioning, autocast
from trainer.backends.cpu import restore
from trainer.flow import conditional_velocity, guided, like, renoise, rollout, sample_tau, x0_from_velocity
from trainer.losses import StudentTargets, fake_loss, student_loss, surrogate_loss
from trainer.methods.base import TAU_GAP
from trainer.roles import FAKE, STUDENT_EMA, SURROGATE, SURROGATE_EMA, TEACHER
from trainer.roles import STUDENT as STUDENT_ROLE
from trainer.rounds import RoundSpec, Stages, prepare
from trainer.rounds.sources import generator_of
from trainer.sampler import related_noise

LOSSES = ("fake", "surrogate", "student", "student_guidance", "student_kl", "student_reward")
SIDES = {"ours": "this trainer, bf16", "ours-fp32": "this trainer, fp32", "naive": "naive order, fp32"}
VAE_BATCH = 16


class Passes:
    """Counts the transformer's evaluations and the images in them."""

    def __init__(self, transformer: torch.nn.Module):
        self.evaluations = self.images = 0
        transformer.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module, args, kwargs) -> None:
        self.evaluations += 1
        self.images += len(kwargs["hidden_states"])


class Ours:
    """A round's own update."""

    def __init__(self, stages: Stages, *, bf16: bool):
        self.round = stages
        self.round.method.bf16 = bf16
        self.passes = Passes(self.round.method.backend.transformer)

    def step(self, number: int) -> dict[str, float]:
        """Update `number` (from 0) of the round; what it logs."""
        return self.round.step(number)


class Naive:
    """The same update from the same random numbers in the naive order. Formulas are the trainer's; the passes are not."""

    def __init__(self, stages: Stages, *, bf16: bool = False):
        """With `bf16` passes and decoding run under autocast, as the trainer's do, also where it does not pay: weights
        may be held in bf16."""
        self.round, self.bf16 = stages, bf16
        self.trainer, self.settings = self.round.method, self.round.settings
        self.backend, self.roles = self.trainer.backend.inner, self.trainer.roles
        if self.settings.surrogate_updates_for(0) != 1 or self.settings.steps_trained != 1:
            raise ValueError("surrogate_updates, steps_trained: one trained step is compared; set both to 1")
        self.grid, self.shape, self.device = self.trainer.grid, self.backend.latent_shape, self.backend.device
        for model in (self.backend.transformer, self.backend.pipeline.vae):
            restore(model)  # as diffusers loads it
        self.backend.pipeline.vae.to(memory_format=torch.contiguous_format)
        self.passes = Passes(self.backend.transformer)
        self.count = 0

    def step(self, number: int) -> dict[str, float]:
        """See `Ours.step`: fake, surrogate, student."""
        s = self.settings
        generator = generator_of(s, number)
        rows = self.round.source.prompts.draw(number, s.prompts_per_update)
        lines = [row for row in rows for _ in range(s.group_size)]
        noise = related_noise(len(rows), s.group_size, self.shape, s.noise_spread, generator).to(self.device)
        cond = self.backend.encode([line["prompt"] for line in lines])
        uncond = self.backend.encode([""] * len(lines))
        trajectory = self.sample(cond, noise)
        scores = self.score(self.decode(trajectory[:, -1]), lines)
        rewards = torch.tensor(scores).reshape(len(rows), s.group_size)
        advantages = group_advantages(rewards, torch.ones_like(rewards, dtype=torch.bool))
        loud = has_signal(rewards)

        # All random numbers, drawn in the trainer's order: it draws none for groups without signal.
        n = int(loud.sum())
        j_group, u_group = torch.zeros(len(rows), dtype=torch.long), torch.full((len(rows),), 0.5)
        eps_group = torch.zeros(len(rows), 1, *self.shape)
        if n:
            weights = torch.arange(1, self.trainer.steps + 1, dtype=torch.float32)
            j_group[loud] = torch.multinomial(weights, n, replacement=True, generator=generator)
            u_group[loud] = torch.rand(n, generator=generator)
            eps_group[loud] = torch.randn((n, 1, *self.shape), generator=generator)
        chosen = torch.randperm(len(lines), generator=generator)[: s.student_batch]
        j = self.trainer.draw_orders(len(chosen), generator)[:, 0]
        u, eps = (
            torch.rand(len(chosen), generator=generator),
            torch.randn((len(chosen), *self.shape), generator=generator),
        )
        u_reward, eps_reward = (
            torch.rand(len(chosen), generator=generator),
            torch.randn(1, *self.shape, generator=generator),
        )
        # Drawn on the CPU, as the trainer does, and used on the device.
        advantages, loud, j_group, u_group, eps_group, chosen, j, u, eps, u_reward, eps_reward = (
            t.to(self.device)
            for t in (advantages, loud, j_group, u_group, eps_group, chosen, j, u, eps, u_reward, eps_reward)
        )

        mine, empty = cond.take(chosen), uncond.take(chosen)
        x_j, s_j, s_n = trajectory[chosen, j], self.grid[j], self.grid[j + 1]
        tau = self.tau(s_n, u)
        metrics, x_tau = self.learn_fake(x_j, s_j, s_n, tau, eps, mine)
        grouped = trajectory.unflatten(0, (len(rows), s.group_size))
        metrics |= self.learn_surrogate(grouped, cond, advantages, loud, j_group, u_group, eps_group)
        metrics |= self.learn_student(x_j, s_j, s_n, tau, x_tau, j, u_reward, eps_reward, mine, empty)
        return metrics

    def tau(self, level: torch.Tensor, u: torch.Tensor, low: float = 0.0) -> torch.Tensor:
        """Levels to re-noise to."""
        return sample_tau(level, self.backend.shift, gap=TAU_GAP, low=low, high=self.grid[0].item(), u=u)

    def velocity(self, role: str, x, t, conditioning: Conditioning) -> torch.Tensor:
        """One evaluation with the role's adapter beside the weights."""
        self.roles.use(role)
        with autocast(self.device, self.bf16, forced=True):
            return self.backend.velocity(x, t, conditioning)

    @contextmanager
    def averaged(self, role: str) -> Iterator[None]:
        """The moving average copied into the live adapter, and the live weights put back."""
        live, average = self.roles.parameters(role), self.roles.parameters(f"{role}_ema")
        kept = [p.detach().clone() for p in live]
        for p, value in zip(live, average, strict=True):
            p.data.copy_(value)
        yield
        for p, value in zip(live, kept, strict=True):
            p.data.copy_(value)

    @torch.no_grad()
    def sample(self, cond: Conditioning, noise: torch.Tensor) -> torch.Tensor:
        """The student's trajectories."""
        return rollout(lambda x, t: self.velocity(STUDENT_ROLE, x, t, cond), noise, self.trainer.levels)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> list:
        """Images, as the stock pipeline decodes latents."""
        pipeline, images = self.backend.pipeline, []
        for part in latents.split(VAE_BATCH):
            with autocast(self.device, self.bf16, forced=True):
                pixels = pipeline.vae.decode(self.backend.to_vae(part), return_dict=False)[0]
            images += pipeline.image_processor.postprocess(pixels.float(), output_type="pil")
        return images

    def score(self, images: list, lines: list[dict]) -> list[float]:
        """The oracle's rewards."""
        return [v.score for v in self.round.oracle.score(images, [line["prompt"] for line in lines], lines)]

    def learn(self, role: str, loss: torch.Tensor) -> None:
        """Backward, clip, AdamW."""
        parameters, optimizer = self.roles.parameters(role), self.trainer.optimizers[role]
        loss.backward(inputs=parameters)
        torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def follow(self, role: str, average: str, decay: float) -> None:
        """Move an average."""
        for p, held in zip(self.roles.parameters(role), self.roles.parameters(average), strict=True):
            held.mul_(decay).add_(p, alpha=1 - decay)

    def learn_fake(self, x_j, s_j, s_n, tau, eps, cond) -> tuple[dict[str, float], torch.Tensor]:
        """Evaluations 1 to 3: student, teacher, fake."""
        with torch.no_grad():
            v = self.velocity(STUDENT_ROLE, x_j, s_j, cond)
            x_tau = renoise(x_j - like(s_j - s_n, x_j) * v, s_n, tau, eps)
            teacher = self.velocity(TEACHER, x_tau, tau, cond)
        x0_hat = x0_from_velocity(x_j, s_j, v)
        fake = self.velocity(FAKE, x_tau, tau, cond)
        loss = fake_loss(fake, x_tau, tau, x0_hat, teacher, teacher_weight=self.settings.fake_teacher)
        self.learn(FAKE, loss)
        return {"fake": loss.item()}, x_tau

    def learn_surrogate(self, trajectory, cond, advantages, loud, j, u, eps) -> dict[str, float]:
        """Evaluations 4 to 6: old surrogate, teacher, surrogate, of all groups. Those without signal then weigh nothing."""
        s, (p, g) = self.settings, advantages.shape
        x_n, s_n = trajectory[torch.arange(p, device=self.device), :, j + 1], self.grid[j + 1]
        tau = self.tau(s_n, u, low=s.surrogate_t_min)
        x_n, eps = x_n.flatten(0, 1), eps.expand_as(x_n).flatten(0, 1)
        s_n, tau = s_n.repeat_interleave(g), tau.repeat_interleave(g)
        x_tau = renoise(x_n, s_n, tau, eps)
        with torch.no_grad():
            with self.averaged(SURROGATE):
                old = self.velocity(SURROGATE, x_tau, tau, cond)
            teacher = self.velocity(TEACHER, x_tau, tau, cond)
        surrogate = self.velocity(SURROGATE, x_tau, tau, cond)
        if not loud.any():
            return {}
        reference = old if s.reference == "ema" else teacher
        target = conditional_velocity(x_n, s_n, tau, eps)
        velocities = [v.unflatten(0, (p, g))[loud] for v in (target, surrogate, reference, old, teacher)]
        terms = surrogate_loss(
            *velocities,
            (advantages * ((j + 1) / self.trainer.steps)[:, None])[loud],
            beta_dpo=s.beta_dpo,
            teacher_weight=s.surrogate_kl,
            clip=s.clip,
            teacher_clip_from=s.teacher_clip_from,
            relative=s.relative,
        )
        self.learn(SURROGATE, terms.loss)
        self.count += 1
        self.follow(SURROGATE, SURROGATE_EMA, min(0.3, 0.001 + 0.001 * self.count))
        return {"surrogate": terms.loss.item()}

    def learn_student(self, x_j, s_j, s_n, tau, x_tau, j, u, eps, cond, uncond) -> dict[str, float]:
        """Evaluations 7 to 13: student once more, teacher twice, fake, and three for the reward (with the teacher's
        guidance: teacher twice and surrogate; with its own: surrogate twice and reference)."""
        s = self.settings
        v = self.velocity(STUDENT_ROLE, x_j, s_j, cond)
        x0_hat = x0_from_velocity(x_j, s_j, v)
        with torch.no_grad():
            passes = ((TEACHER, cond), (TEACHER, uncond), (FAKE, cond))
            x0_of = [x0_from_velocity(x_tau, tau, self.velocity(role, x_tau, tau, text)) for role, text in passes]
            tau = self.tau(s_n, u, low=s.t_min)
            x_n = x_j - like(s_j - s_n, x_j) * v
            x_tau = renoise(x_n, s_n, tau, eps.expand_as(x_n))
            guide = SURROGATE if s.reward_guidance == "surrogate" else TEACHER
            with_text, without = (self.velocity(guide, x_tau, tau, text) for text in (cond, uncond))
            target, reference = guided(with_text, without, s.rl_cfg), with_text
            if guide == TEACHER:
                target = target + s.reward_scale * (self.velocity(SURROGATE, x_tau, tau, cond) - with_text)
            if s.reference == "ema":
                with self.averaged(SURROGATE):
                    reference = self.velocity(SURROGATE, x_tau, tau, cond)
            elif guide != TEACHER:
                reference = self.velocity(TEACHER, x_tau, tau, cond)
            pair = [x0_from_velocity(x_tau, tau, velocity) for velocity in (target, reference)]
        weights = {"guidance_weight": s.guidance_weight, "reward_on": (j < s.trunc_steps).float()}
        loss, terms = student_loss(x0_hat, StudentTargets(*x0_of, *pair), guidance=s.guidance, **weights)
        self.learn(STUDENT_ROLE, loss)
        self.follow(STUDENT_ROLE, STUDENT_EMA, s.ema)
        return {"student": loss.item(), **{f"student_{name}": term.item() for name, term in terms.items()}}


def demo_spec(work: Path, a: argparse.Namespace) -> RoundSpec:
    """A round of the demo model from the scene oracle."""
    sizes = {"prompts_per_update": a.prompts, "student_batch": a.student_batch}
    settings = TDMR1Settings.from_json({**sizes, "validation_images": 0, "updates": 1000, **EVERY_STEP, **a.settings})
    return oracle_spec(work, settings)


def made(side: str, spec: RoundSpec) -> Ours | Naive:
    """A side by its name in `SIDES`."""
    stages = prepare(spec)
    return Naive(stages) if side == "naive" else Ours(stages, bf16=side == "ours")


def compare(work: Path, a: argparse.Namespace) -> dict:
    """Both sides' losses of the same steps in fp32, and their largest difference."""
    losses = {}
    for side in ("ours-fp32", "naive"):
        one = made(side, demo_spec(work / side, a))
        losses[side] = [{name: metrics[name] for name in LOSSES} for metrics in map(one.step, range(a.compared))]
    pairs = zip(*losses.values(), strict=True)
    return {"steps": a.compared, "largest": max(abs(x[n] - y[n]) for x, y in pairs for n in LOSSES), **losses}


def timing(side: str, work: Path, a: argparse.Namespace) -> dict:
    """Mean seconds of the steps after the first, the process' peak of memory (MiB) and the passes of a step."""
    one = made(side, demo_spec(work, a))
    baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    one.step(0)  # warms up
    calls, images = one.passes.evaluations, one.passes.images
    clock, cpu = time.perf_counter(), time.process_time()
    for number in range(1, a.steps + 1):
        one.step(number)
    return {
        "clock": (time.perf_counter() - clock) / a.steps,
        "cpu": (time.process_time() - cpu) / a.steps,
        "loaded": baseline,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "evaluations": (one.passes.evaluations - calls) / a.steps,
        "images": (one.passes.images - images) / a.steps,
    }


def allocated(side: str, work: Path, a: argparse.Namespace) -> dict:
    """The most bytes (MiB) of tensors that a step holds beyond what the loaded side does, and the peak's phase is its own.

    From the allocator's events, which cost time: not a timing.
    """
    one = made(side, demo_spec(work, a))
    one.step(0)  # optimizers have their states from here on
    return {"tensors": peak_of(lambda: one.step(1)) / 2**20}


def child(job: str, a: argparse.Namespace) -> dict:
    """What `job` prints in a process of its own."""
    command = [sys.executable, "-m", "bench.speed.step", "--job", job]
    for name in ("threads", "prompts", "student-batch", "steps", "compared"):
        command += [f"--{name}", str(getattr(a, name.replace("-", "_")))]
    command += ["--settings", json.dumps(a.settings)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def report(a: argparse.Namespace) -> None:
    """Run everything and print it as Markdown."""
    equal = child("compare", a)
    print(f"Losses of {equal['steps']} steps, both sides in fp32 on the same random numbers: ", end="")
    print(f"largest difference {equal['largest']:.1e} (target 1e-4).\n")
    print("| step | loss | this trainer | naive order |\n|---|---|---|---|")
    for number, (x, y) in enumerate(zip(equal["ours-fp32"], equal["naive"], strict=True), start=1):
        for name in LOSSES:
            print(f"| {number} | {name} | {x[name]:.6f} | {y[name]:.6f} |")
    runs: dict[str, list[dict]] = {side: [] for side in SIDES}
    for turn in range(a.rounds):
        for side in SIDES:
            runs[side].append(child(f"time:{side}", a))
            print(f"turn {turn + 1}, {side}: {runs[side][-1]}", file=sys.stderr, flush=True)
    tensors = {side: child(f"memory:{side}", a)["tensors"] for side in SIDES}
    keep(a.work, Run.made_here("losses", None, told(a, "job"), equal))
    for side, of in runs.items():
        keep(a.work, Run.made_here(side, None, told(a, "job"), {"turns": of, "tensors": tensors[side]}))
    images = a.prompts * TDMR1Settings.from_json(a.settings).group_size
    extra = {side: max(r["peak"] - r["loaded"] for r in of) for side, of in runs.items()}
    print(
        f"\n{images} images a step, {a.student_batch} of them in the student's update; {a.threads} thread(s).", end=" "
    )
    print(f"{a.rounds} processes a side in turns, {a.steps} step(s) each after one that warms up.\n")
    print("| side | images/s, median (min to max) | by CPU time | evaluations, rollout + rest |", end=" ")
    print(
        "images through the transformer | peak of tensors, MiB | of the process, MiB |\n|---|---|---|---|---|---|---|"
    )
    for side, name in SIDES.items():
        clock, cpu = ([images / r[by] for r in runs[side]] for by in ("clock", "cpu"))
        last = runs[side][-1]
        print(f"| {name} | {spread(clock)} | {spread(cpu)} | 4 + {last['evaluations'] - 4:g} | ", end="")
        print(f"{last['images']:.0f} | {tensors[side]:.0f} | {extra[side]:.0f} |")
    print("\n| against the naive order | images/s, of each turn | by CPU time | peak of tensors | of the process |")
    print("|---|---|---|---|---|")
    for side in ("ours", "ours-fp32"):
        pairs = list(zip(runs["naive"], runs[side], strict=True))
        clock, cpu = (spread([n[by] / o[by] for n, o in pairs]) for by in ("clock", "cpu"))
        memory = f"{tensors[side] / tensors['naive']:.0%} | {extra[side] / extra['naive']:.0%}"
        print(f"| {SIDES[side]} | {clock} | {cpu} | {memory} |")
    print("\nTargets: 2x images/s, 60% of the peak, losses equal to 1e-4. Peaks are over what the loaded model takes.")


def spread(values: list[float]) -> str:
    """Median (min to max)."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """See the module's docstring; `--job` is for the processes that this one starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=16, help="groups a step")
    parser.add_argument("--student-batch", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5, help="processes a side")
    parser.add_argument("--steps", type=int, default=1, help="timed steps a process")
    parser.add_argument("--compared", type=int, default=2, help="steps whose losses are compared")
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON of settings that differ")
    add_work(parser, "step")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    if not a.job:
        report(a)
        return
    kind, _, side = a.job.partition(":")
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        found = (
            compare(folder, a) if kind == "compare" else {"time": timing, "memory": allocated}[kind](side, folder, a)
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
