"""What the literature says of samplers and formulations, weighed on the numbers of a study.

A verdict is about one data set, one denoiser (exact, or a trained formulation) on one schedule, and
the data set's first metric: `holds`, `does not hold`, `holds in part` or `cannot be told`, by the
rules of `evidence` and `comparisons`. A claim whose rows the study does not have is not asked, and
has none.

Claims about few steps mean N <= 10 (`evidence.FEW`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tasks.plain import Spec
from tasks.report.numbers.curves import Tabulation, tabulate
from tasks.report.numbers.evidence import VERDICTS, Evidence, Verdict
from tasks.report.numbers.peer_claims import claimed_orders, same_rules
from tasks.report.numbers.sampler_claims import ddim_is_euler, multistep, noise_corrects, second_order, variances
from tasks.report.numbers.schedule_claims import accurate, bounded, straight_paths

if TYPE_CHECKING:
    from tasks.results import Answers


@dataclass(frozen=True)
class Claim:
    """A sentence of the literature; `needs` is what a study must ask for it to be weighed."""

    key: str
    text: str
    source: str
    needs: str
    weigh: Callable[[Evidence, str], Iterable[Verdict]]


@dataclass(frozen=True)
class Weighed:
    """A claim with its verdicts, in the order of the study."""

    claim: Claim
    verdicts: tuple[Verdict, ...]

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many verdicts of each kind there are, without the kinds that do not occur."""
        found = {kind: sum(one.verdict == kind for one in self.verdicts) for kind in VERDICTS}
        return {kind: count for kind, count in found.items() if count}


def weigh(table: Tabulation) -> list[Weighed]:
    """Every claim on every data set; those that the study did not ask have no verdicts."""
    evidence = Evidence(table)
    return [
        Weighed(claim, tuple(verdict for dataset in table.datasets for verdict in claim.weigh(evidence, dataset)))
        for claim in CLAIMS
    ]


def claims(answers: Answers) -> list[Spec]:
    """Every claim as plain values: `claim`, `text`, `source`, `needs`, `asked`, and a list of
    `verdicts`.

    A verdict has `dataset`, `metric`, `formulation` (``exact`` for the exact denoiser), `schedule`,
    `compared`, `verdict`, `text`, `crossings` and `comparisons`.
    """
    return [
        {
            "claim": one.claim.key,
            "text": one.claim.text,
            "source": one.claim.source,
            "needs": one.claim.needs,
            "asked": bool(one.verdicts),
            "verdicts": [verdict.as_dict() for verdict in one.verdicts],
        }
        for one in weigh(tabulate(answers))
    ]


CLAIMS = (
    Claim(
        "second-order",
        "Heun's second-order steps are worth their double cost: at equal NFE they err less than Euler's.",
        "Karras et al. 2022, section 3",
        "heun and euler",
        second_order,
    ),
    Claim(
        "ancestral-variance",
        "Which variance ancestral sampling takes, posterior or transition (B²), matters at few steps and no longer at many.",
        "Ho et al. 2020, section 3.2; Nichol & Dhariwal 2021, section 3.1",
        "ancestral with both variances on a variance-preserving schedule, at N ≤ 10 and above",
        variances,
    ),
    Claim(
        "multistep",
        "Multistep beats single-step at equal cost: DPM-Solver++(2M) errs less than Heun's method and than DDIM.",
        "Lu et al., DPM-Solver++, 2022",
        "dpmpp-2m and one of heun, ddim",
        multistep,
    ),
    Claim(
        "ddim-is-euler",
        "DDIM is Euler's rule in sigma/alpha instead of t: the same where both are linear in t, better elsewhere.",
        "Song, Meng & Ermon, ICLR 2021, section 4.3; Karras et al. 2022, section 3",
        "ddim and euler",
        ddim_is_euler,
    ),
    Claim(
        "straight-paths",
        "Straight paths need few steps, ideally one: flow matching's schedule errs less than others at N ≤ 3.",
        "Liu et al. and Lipman et al., ICLR 2023",
        "euler or ddim on the schedule flow and on another one, at N ≤ 3",
        straight_paths,
    ),
    Claim(
        "edm-robust",
        "EDM is the most robust at few steps: its largest error over N ≤ 10 is the smallest.",
        "the lecture, level 4; Karras et al. 2022",
        "heun or euler on edm and on another schedule, at N ≤ 10",
        bounded,
    ),
    Claim(
        "edm-accurate",
        "EDM converges quicker and more accurately: it errs least at every N.",
        "the lecture, level 4; Karras et al. 2022",
        "heun or euler on edm and on another schedule",
        accurate,
    ),
    Claim(
        "noise-corrects",
        "Stochastic samplers need more steps, and at many err less than their deterministic counterparts: noise corrects errors.",
        "Karras et al. 2022, section 4; Song et al. 2021",
        "churn, ancestral, dpmpp-2m-sde or euler-maruyama beside heun, ddim, dpmpp-2m or euler",
        noise_corrects,
    ),
    Claim(
        "claimed-order",
        "A sampler of another library has the order that it claims, on a normal law and on a mixture of two.",
        "the documentation and the names of azula, diffusers and k-diffusion (docs/peers.md)",
        "a sampler of azula, diffusers or k-diffusion on the grid's levels",
        claimed_orders,
    ),
    Claim(
        "same-rule",
        "One rule gives one set of numbers, whichever library it is written in.",
        "docs/peers.md, which of their samplers are rules of ours",
        "a sampler of another library beside ours of the same rule, on the same grid",
        same_rules,
    ),
)
"""What is weighed, in the order of the page."""
