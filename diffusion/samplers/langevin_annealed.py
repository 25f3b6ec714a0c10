"""Annealed Langevin dynamics: moves at one noise level after the other, from the noise down to the
data.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from diffusion.datasets import Dataset, noised_distribution
from diffusion.errors import WrongValue
from diffusion.models import Denoiser
from diffusion.samplers.base import PathSampler, per_member, samplers, without_data_at_the_start
from diffusion.samplers.langevin import MOST_MOVES, check_tau, langevin_move, least_noise
from diffusion.samplers.noise import Noise
from diffusion.schedules import Schedule
from diffusion.schedules.levels import Level


@samplers.register(
    "annealed-langevin",
    formula="at each level sigma_i of the grid, T times x += a_i score(x) + sqrt(2 a_i) z, a_i = eps sigma_i^2 / sigma_L^2 = "
    "tau sigma_i^2; then D(x)",
    source="Song & Ermon 2019, Algorithm 1 (with a_i/2 and sqrt(a_i)); Song & Ermon 2020, Algorithm 1 and section 3.5",
    document="S1",
)
@dataclass(frozen=True)
class AnnealedLangevin(PathSampler):
    """Langevin dynamics down the levels of a grid: at each, `moves` moves from where those of the
    level above ended.

    The first level's samples start from the schedule's start noise, N(0, sigma_1^2) where signal is
    not scaled down. (A start from the target's own support, which a text may call uniform, would
    hide on uniform data that nothing was sampled.) `tau` is the step in units of the level's
    sigma^2: ``eps / sigma_L^2`` of Song & Ermon 2020, **half** of it of Song & Ermon 2019. Between
    levels it is x/alpha that is handed on. With `denoise`, as the second paper recommends, the last
    state is D(x) at no noise, and of the first level the start alone is a state; without it,
    samples follow the law at the last noisy level.

    Levels must lie near enough for the samples of one to find their way at the next: geometric ones
    do, which is grid `uniform-log-snr`. N levels cost ``moves N`` evaluations, and one for the
    denoising.

    Raises:
        WrongValue: fewer than 1 move, tau not positive or not below 2.
    """

    moves: int = 10
    tau: float = 0.2
    denoise: bool = True
    order: ClassVar[int | None] = None
    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_tau("annealed-langevin", self.tau, "noise")
        if not 1 <= self.moves <= MOST_MOVES:
            raise WrongValue(f"annealed-langevin needs moves from 1 to {MOST_MOVES}, found {self.moves}")

    def refuses(self, schedule: Schedule) -> str | None:
        if without_data_at_the_start(schedule):
            return (
                f"schedule {schedule.registered_name!r} starts at alpha = 0, and 'annealed-langevin' hands x / alpha on from "
                f"level to level (use a smaller t_max)"
            )
        return super().refuses(schedule)

    def evaluations(self, steps: int) -> int:
        return self.moves * steps + self.denoise

    def path(self, levels: Sequence[Level]) -> Sequence[Level]:
        """The grid's levels; without `denoise` the first twice, before its moves and after, and not
        the clean one.
        """
        return levels if self.denoise else [levels[0], *levels[:-1]]

    def target(self, dataset: Dataset, last: Level) -> Dataset:
        """The data's law; without `denoise`, that at the last noisy level."""
        return dataset if last.clean else noised_distribution(dataset, float(last.alpha), float(last.sigma))

    def trajectory(self, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise) -> Iterator[Tensor]:
        if levels[-1].clean != self.denoise:
            raise WrongValue(
                f"'annealed-langevin' with denoise = {self.denoise} was handed levels that end at sigma/alpha = {least_noise(levels[-1])}; "
                f"accepted: the levels of sampler.path(levels), not the grid's"
            )
        if self.denoise:
            x = self._moved(denoiser, x, levels[0], noise)
        for now, then in itertools.pairwise(levels):
            if then.clean:
                x = denoiser(x, now.alpha, now.sigma)
            else:
                x = self._moved(denoiser, per_member(then.alpha / now.alpha) * x, then, noise)
            yield x

    def _moved(self, denoiser: Denoiser, x: Tensor, level: Level, noise: Noise) -> Tensor:
        """x after all moves of one level."""
        for _ in range(self.moves):
            x = langevin_move(denoiser, x, level, self.tau * level.sigma**2, noise.fresh())
        return x
