"""A study that asks some of its groups more step counts than the others: as blocks of `grids`, each of
which asks one group.
"""

from __future__ import annotations

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
        The blocks of the study, and one for each group. Patterns of `exclude` that name steps are
        left out of these.

    Raises:
        KeyError: the study has no such group.
    """
    left = {group: tuple(sorted(steps)) for group, steps in added.items() if steps}
    found: dict[Group, Spec] = {}
    for block in study.blocks():
        for one in _single(block):
            if len(found) == len(left):
                break
            for point in points_of(study.model_copy(update={"grids": (one,)})):
                group = group_of(point)
                if group in left and group not in found:
                    found[group] = _asking(point, one, left[group])
    if missing := left.keys() - found.keys():
        raise KeyError(next(iter(missing)))
    return [*(study.spec()["grids"] or [{}]), *(found[group] for group in left)]


def _single(block: Block) -> Iterator[Axes]:
    """The crosses of one data set, model and sampler each that make up a block, with one seed."""
    for dataset in block.datasets:
        for formulation, schedule in block.pairs():
            for sampler in block.samplers:
                axes = {
                    "datasets": (dataset,),
                    "formulations": (formulation,),
                    "schedules": (schedule,) if block.schedules else None,
                    "seeds": block.seeds[:1],
                    "training": block.training,
                    "samplers": (sampler,),
                    "steps": block.steps,
                    "exclude": block.exclude,
                }
                yield Axes.model_construct(_fields_set={*axes}, **axes)


def _asking(point: Point, one: Axes, steps: Sequence[int]) -> Spec:
    """The block that asks a point's group, one of those of `one`, so many steps."""
    spec = one.axes_spec(name for name in Axes.model_fields if name not in ("seeds", "steps", "exclude"))
    exclude: list[Spec] = [pattern.spec() for pattern in one.exclude if pattern.steps is None]
    if isinstance(point.cell.formulation, Exact):
        spec |= {"formulations": [Exact(point.cell.schedule).spec()], "schedules": None}
    else:
        exclude = [*exclude, _EXACT]
    if not isinstance(point.cell.formulation, Trained):
        del spec["training"]
    return {**spec, "steps": list(steps), "exclude": exclude}
