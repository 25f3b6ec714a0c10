"""A study that asks some of its groups more step counts than the others: as blocks of `grids`, each of
which asks one group.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence

from diffusion.formulations import Exact, Trained
from tasks.plain import Spec
from tasks.plan.expansion import points_of
from tasks.plan.point import Point
from tasks.study import Study
from tasks.study.axes import Axes, Block

Group = tuple[str, ...]

_EXACT: Spec = {"formulation": ["exact"]}  # which comes with every block


def blocks_with_steps(
    study: Study, added: Mapping[Group, Sequence[int]], group_of: Callable[[Point], Group]
) -> list[Spec]:
    """The `grids` of a study that asks some groups more.

    Args:
        study: the one that is added to.
        added: the step counts of each group that gets some.
        group_of: which group a point is of.

    Returns:
        The blocks of the study, and one for each group and each way in which the study asks it (two
        trainings are two), with all seeds that it has there at any step count. So patterns of
        `exclude` that name seeds or steps are left out of these.

    Raises:
        KeyError: the study has no such group.
    """
    wanted = {group: tuple(sorted(steps)) for group, steps in added.items() if steps}
    found: dict[Group, dict[str, tuple[Spec, set[int]]]] = {group: {} for group in wanted}
    for block in study.blocks():
        for one in _single(block):
            seeds: dict[Group, set[int]] = {}
            first: dict[Group, Point] = {}
            for point in points_of(study.model_copy(update={"grids": (one,)})):
                group = group_of(point)
                if group in wanted:
                    first.setdefault(group, point)
                    seeds.setdefault(group, set()).add(point.cell.seed)
            for group, point in first.items():
                spec = _asking(point, one, wanted[group])
                found[group].setdefault(json.dumps(spec, sort_keys=True), (spec, set()))[1].update(seeds[group])
    if missing := [group for group, ways in found.items() if not ways]:
        raise KeyError(missing[0])
    more: list[Spec] = [{**spec, "seeds": sorted(seeds)} for ways in found.values() for spec, seeds in ways.values()]
    return [*(study.spec()["grids"] or [{}]), *more]


def _single(block: Block) -> Iterator[Axes]:
    """The crosses of one data set, model and sampler each that make up a block."""
    for dataset in block.datasets:
        for formulation, schedule in block.pairs():
            for sampler in block.samplers:
                axes = {
                    "datasets": (dataset,),
                    "formulations": (formulation,),
                    "schedules": (schedule,) if block.schedules else None,
                    "seeds": block.seeds,
                    "training": block.training,
                    "samplers": (sampler,),
                    "steps": block.steps,
                    "exclude": block.exclude,
                }
                yield Axes.model_construct(_fields_set={*axes}, **axes)


def _asking(point: Point, one: Axes, steps: Sequence[int]) -> Spec:
    """The block that asks a point's group, one of those of `one`, so many steps; without its seeds."""
    spec = one.axes_spec(name for name in Axes.model_fields if name not in ("seeds", "steps", "exclude"))
    exclude: list[Spec] = [rule.spec() for rule in one.exclude if rule.steps is None and rule.seed is None]
    if isinstance(point.cell.formulation, Exact):
        spec |= {"formulations": [Exact(point.cell.schedule).spec()], "schedules": None}
    else:
        exclude = [*exclude, _EXACT]
    if not isinstance(point.cell.formulation, Trained):
        del spec["training"]
    return {**spec, "steps": list(steps), "exclude": exclude}
