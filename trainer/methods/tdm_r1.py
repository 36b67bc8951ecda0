"""TDM-R1: a surrogate learns from groups which images are liked, and the student follows it (arXiv 2603.07700).

One update is: sample, surrogate, then fake and student. All randomness of update n comes from a generator seeded with
(seed, n), so a resumed run repeats an unbroken one bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from trainer.backends import Conditioning, moved
from trainer.flow import conditional_velocity, guided, renoise, rollout, x0_from_velocity
from trainer.losses import SurrogateTerms
from trainer.methods.base import Groups, Rollouts, read
from trainer.methods.tdm import TDM
from trainer.roles import SURROGATE, SURROGATE_EMA, TDM_R1_ROLES, TEACHER
from trainer.shares import Part

TAUGHT_STEPS, TAUGHT_GUIDANCE = 20, 4.0  # of pictures by the surrogate itself
TARGET = "target"  # the conditional velocity, beside the roles' own


def step_orders(count: int, steps: int, generator: torch.Generator, *, rewarded: int, share: float) -> torch.Tensor:
    """In which order the steps of each trajectory are trained, (count, steps), random. With a `share` above 0, the first
    `rewarded` steps come before all others in that share of the orders, and after them in the rest."""
    orders = torch.stack([torch.randperm(steps, generator=generator) for _ in range(count)])
    if share and 0 < rewarded < steps:
        early = torch.rand(count, 1, generator=generator) < share
        later = (orders < rewarded) != early
        orders = orders.gather(1, later.int().argsort(dim=1, stable=True))
    return orders


def strata(count: int, generator: torch.Generator) -> torch.Tensor:
    """Numbers (count,), each uniform on 0..1, one in each of `count` equal parts, in random order."""
    places = torch.randperm(count, generator=generator)
    return (places + torch.rand(count, generator=generator)) / count


def at_shares(weights: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Which of the weights (n,) each number of `u` on 0..1 falls to, where each takes a part as long as its weight."""
    ends = weights.cumsum(0) / weights.sum()
    return torch.searchsorted(ends, u, right=True).clamp(max=len(weights) - 1)


class TDMR1(TDM):
    """See the module's docstring."""

    name = "tdm_r1"
    roles_needed = TDM_R1_ROLES
    takes_imported = True

    def learn(self, groups: Groups, generator: torch.Generator) -> dict[str, float]:
        """See `Method.learn`."""
        if self.settings.steps_together:
            groups = groups.each(min(self.settings.steps_trained, self.steps))
        return self.surrogate_update(groups, generator)

    def follow(self, rollouts: Rollouts, generator: torch.Generator) -> dict[str, float]:
        """See `Method.follow`: fake and student on `steps_trained` steps of every trajectory."""
        part, conditioning = rollouts.part, self.backend.encode(rollouts.prompts)
        orders = part.pick(self.draw_orders(part.total, generator))[:, : self.settings.steps_trained]
        if self.settings.steps_together:
            times = orders.shape[1]
            trajectory, conditioning = rollouts.trajectory.repeat_interleave(times, 0), conditioning.repeat(times)
            return self.student_update(trajectory, conditioning, orders.flatten(), generator, part.each(times))
        metrics: dict[str, float] = {}
        for j in orders.unbind(1):
            metrics |= self.student_update(rollouts.trajectory, conditioning, j, generator, part)
        return metrics

    def reward_term(
        self, x_n, s_n, j, conditioning: Conditioning, generator: torch.Generator, part: Part
    ) -> tuple[dict[str, torch.Tensor], dict]:
        """See `TDM.reward_term`: the first `trunc_steps` steps are rewarded."""
        s = self.settings
        rewarded = j < s.trunc_steps  # on the CPU, where looking for rows does not wait for the device
        # Where every step is rewarded no value has to be looked at, which `trainer.plan` could not do.
        where = slice(None) if s.trunc_steps >= self.steps else moved(rewarded.nonzero().flatten(), x_n.device)
        pair = self.reward_targets(x_n, s_n, conditioning, generator, part, where)
        return pair, {
            "guidance_weight": s.guidance_weight,
            "reward_on": moved(rewarded.float(), x_n.device),
            "late_steps": s.late_steps,
        }

    @torch.no_grad()
    def reward_targets(self, x_n, s_n, conditioning: Conditioning, generator, part, where) -> dict[str, torch.Tensor]:
        """The reward term's pair, computed for the rows `where` (a slice or indices) and 0 elsewhere. The preference loss
        moves the surrogate's conditional and unconditional predictions alike, since one adapter makes both; its own
        guidance, which takes their difference, cancels what they share. With the teacher's guidance the whole of what was
        learned counts, `reward_scale` times."""
        s = self.settings
        tau = self.tau(s_n, self.uniform(part, generator), low=s.t_min)
        eps = self.noise(Part.whole(1), x_n.shape[1:], generator).expand_as(x_n)
        pair = {name: torch.zeros_like(x_n) for name in ("surrogate_cfg", "reference")}
        x_n, s_n, tau, eps = (values[where] for values in (x_n, s_n, tau, eps))
        if not len(x_n):
            return pair
        conditioning = conditioning.take(where)
        x_tau = renoise(x_n, s_n, tau, eps)
        if s.reward_guidance == "surrogate":
            target = guided(*self.both_branches(SURROGATE, x_tau, tau, conditioning), s.rl_cfg)
            reference = self.fixed_velocity(self.reference, x_tau, tau, conditioning)
        else:
            cond, uncond = self.both_branches(TEACHER, x_tau, tau, conditioning)
            learned = self.fixed_velocity(SURROGATE, x_tau, tau, conditioning) - cond
            target = guided(cond, uncond, s.rl_cfg) + s.reward_scale * learned
            frozen = self.reference == TEACHER
            reference = cond if frozen else self.fixed_velocity(self.reference, x_tau, tau, conditioning)
        for name, velocity in zip(pair, (target, reference), strict=True):
            pair[name][where] = x0_from_velocity(x_tau, tau, velocity)
        return pair

    @property
    def reference(self) -> str:
        """The role that the likelihood gain is measured against."""
        return SURROGATE_EMA if self.settings.reference == "ema" else TEACHER

    def surrogate_update(self, groups: Groups, generator: torch.Generator) -> dict[str, float]:
        """Train the surrogate on labelled groups by group preference, then move its EMA.

        The point of the trajectory is drawn per group, later points more often (step j with probability proportional to
        j + 1; of imported images it is the last one), and time and noise are shared by the group. Groups without signal
        must have been left out by the caller.
        """
        s = self.settings
        p, g = groups.advantages.shape
        part = groups.part or Part.whole(p)
        if not p:
            self.step(SURROGATE, (), part)
            self.follow_surrogate()
            return {}
        j, u = (moved(part.pick(drawn), self.backend.device) for drawn in self.draw_points(part.total, generator))
        if groups.imported is not None:  # the image is all that is known, and it is at level 0
            j = torch.where(moved(groups.imported, j.device), self.steps - 1, j)
        rows, points = torch.arange(p, device=j.device), groups.trajectory.shape[2]
        x_n, s_n = groups.trajectory[rows, :, (j + 1).clamp(max=points - 1)], self.grid[j + 1]
        tau = self.tau(s_n, u, low=s.surrogate_t_min)
        eps = self.noise(part, (1, *x_n.shape[2:]), generator).expand_as(x_n).flatten(0, 1)
        x_n, s_n, tau = x_n.flatten(0, 1), s_n.repeat_interleave(g), tau.repeat_interleave(g)
        x_tau = renoise(x_n, s_n, tau, eps)
        conditioning = groups.conditioning.repeat(g)
        fixed = {TARGET: conditional_velocity(x_n, s_n, tau, eps)}
        fixed |= {role: self.fixed_velocity(role, x_tau, tau, conditioning) for role in (SURROGATE_EMA, TEACHER)}
        parts: list[SurrogateTerms] = []

        def losses() -> Iterator[tuple[torch.Tensor, int]]:
            for some in self.graphs(p, g):
                images = slice(some.start * g, some.stop * g)
                v = self.velocity(SURROGATE, x_tau[images], tau[images], conditioning.take(images))
                held = {name: t[images].unflatten(0, (-1, g)) for name, t in fixed.items()}
                parts.append(
                    self.preference_loss(
                        held[TARGET],
                        v.unflatten(0, (-1, g)),
                        held[self.reference],
                        held[SURROGATE_EMA],
                        held[TEACHER],
                        groups.advantages[some],
                        j[some],
                    )
                )
                yield parts[-1].loss, len(v) // g

        self.step(SURROGATE, losses(), part)
        self.follow_surrogate()
        terms = SurrogateTerms.join(parts)
        liked, disliked = (groups.advantages > 0).float(), (groups.advantages < 0).float()
        return read(
            {
                "surrogate": terms.loss,
                "group_weight": terms.group_weight.mean(),
                "active": terms.active,
                "distance": terms.distance,
                "margin": _mean(terms.gain, liked) - _mean(terms.gain, disliked),
            }
        )

    def draw_points(self, total: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Which step and time (uniform on 0..1) each of `total` groups is looked at with, both (total,), on the CPU.
        `stratified` spreads them evenly over the groups; each group alone is still looked at anywhere, so the mean of the
        gradient stays and its variance falls."""
        weights = torch.arange(1, self.steps + 1, dtype=torch.float32)
        if self.settings.stratified:
            return at_shares(weights, strata(total, generator)), strata(total, generator)
        j = torch.multinomial(weights, total, replacement=True, generator=generator)
        return j, torch.rand(total, generator=generator)

    def follow_surrogate(self) -> None:
        """Move the surrogate's average after an update of it."""
        self.surrogate_count += 1
        self.roles.average(SURROGATE, SURROGATE_EMA, min(0.3, 0.001 + 0.001 * self.surrogate_count))

    @torch.no_grad()
    def taught_velocity(
        self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning, *, guidance: float, strength: float
    ) -> torch.Tensor:
        """What the surrogate itself would draw by: the teacher's velocity at `guidance`, moved by what the surrogate
        learned, `strength` times. Points (B, C, h, w) at levels `t` (B,)."""
        if guidance > 1:
            cond, uncond = self.both_branches(TEACHER, x, t, conditioning)
        else:
            cond = uncond = self.fixed_velocity(TEACHER, x, t, conditioning)
        return guided(cond, uncond, guidance) + strength * self.learned_velocity(x, t, conditioning, cond)

    def learned_velocity(
        self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning, teacher: torch.Tensor
    ) -> torch.Tensor:
        """What the surrogate learned as a change of the velocity; `teacher` is the teacher's with the prompt."""
        return self.fixed_velocity(SURROGATE, x, t, conditioning) - teacher

    def sample_taught(
        self,
        conditioning: Conditioning,
        noise: torch.Tensor,
        grid: torch.Tensor,
        *,
        guidance: float = TAUGHT_GUIDANCE,
        strength: float = 1.0,
    ) -> torch.Tensor:
        """Trajectories (B, K + 1, C, h, w) of Euler steps by `taught_velocity`: pictures of what the surrogate knows."""

        def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return self.taught_velocity(x, t, conditioning, guidance=guidance, strength=strength)

        return rollout(velocity, noise.to(self.backend.device), grid)

    def surrogate_parts(self) -> dict:
        """What the surrogate is made of, by name."""
        return {SURROGATE: self.roles.part(SURROGATE)}

    @torch.no_grad()
    def learned_reward(self, groups: Groups, *, draws: int = 4, generator: torch.Generator) -> torch.Tensor:
        """The learned reward of each image, (P, G): how much better the surrogate explains it than the teacher does,
        relative to the teacher's denoising error, averaged over `draws` times and noises of the last trajectory point."""
        p, g = groups.advantages.shape
        x0 = groups.trajectory[:, :, -1].flatten(0, 1)
        conditioning = groups.conditioning.repeat(g)
        total = torch.zeros(p, g, device=x0.device)
        for _ in range(draws):
            tau = self.draw_levels(p, generator).repeat_interleave(g)
            eps = self.noise(Part.whole(p), (1, *x0.shape[1:]), generator).expand(p, g, *x0.shape[1:]).flatten(0, 1)
            d_teacher, d_surrogate = (
                self.denoising_error(role, x0, conditioning, tau, eps).unflatten(0, (p, g))
                for role in (TEACHER, SURROGATE)
            )
            total += (d_teacher - d_surrogate) / d_teacher.mean(1, keepdim=True)
        return total / draws

    def draw_orders(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """In which order the steps of `count` trajectories are trained, see `step_orders`; on the CPU."""
        s = self.settings
        return step_orders(count, self.steps, generator, rewarded=s.trunc_steps, share=s.reward_share)


def _mean(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Mean of the values where `where` is 1; nan where it never is."""
    return (values * where).sum() / where.sum()
