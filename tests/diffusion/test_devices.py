"""Every registered name takes its step on the device of its points: shown on torch's `meta` device,
which has shapes and no numbers.

There a wait for a value is an error of torch's own, and `Apart` makes one of every operation that
mixes tensors of the host with those of the device; the exceptions are named below, with the reason.
"""

from __future__ import annotations

import dataclasses
import io
import math
import pickle
from collections.abc import Iterator
from typing import Any, ClassVar, get_args

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffusion.datasets import Dataset, EightGaussians, Gaussian, PointSet, TwoMoonsPosterior, datasets
from diffusion.datasets.degradations import degradations
from diffusion.datasets.points import PointsOfClass
from diffusion.datasets.truncated_normal import where_asked
from diffusion.devices import HOST, device_of
from diffusion.formulations import Exact, Formulation, formulations
from diffusion.formulations.base import Trained
from diffusion.formulations.coupled import ExactBetween
from diffusion.guidance import Guided, guidances
from diffusion.inference import Question, Subject, levels_for, states
from diffusion.metrics import ModelMetric, metrics
from diffusion.models import (
    ActionModel,
    Decoder,
    Denoiser,
    Encoder,
    ExactDenoiser,
    LabelledDenoiser,
    LatentVariableModel,
    counted,
)
from diffusion.models.given import given_denoiser
from diffusion.models.own import OwnDenoiser, Predicts
from diffusion.networks import architectures
from diffusion.objectives import noise_distributions, weightings
from diffusion.objectives.denoising import NetworkDenoiser
from diffusion.objectives.parametrizations import Circle
from diffusion.objectives.recipe import Recipe
from diffusion.randomness import stream
from diffusion.samplers import samplers
from diffusion.schedules import EDM, Schedule, schedules
from diffusion.schedules.grids import grids
from diffusion.schedules.levels import levels_on
from diffusion.training import Member, Training, train
from tests.diffusion.taught import examples

META = torch.device("meta")

ON_THE_HOST: dict[str, str] = {
    "torus": "each point's own place chooses its quadrature rule",
    "moons": "each point's own place chooses its quadrature rule, and its panels",
    "swiss_roll": "each point's own place chooses its quadrature rule, and its panels",
    "two_moons_posterior": "each point's own place chooses the part of the moons that is integrated over",
}
"""Laws that are asked on the host, and copied back."""

WAITS: dict[str, str] = {
    "nll": "the flow is followed by an adaptive solver on the host",
    "bits-per-dim": "the flow is followed by an adaptive solver on the host",
    "azula": "its samplers ask a schedule on the host for each time",
    "k-diffusion": "its samplers ask of each level whether it is the last",
    "rk45": "the adaptive rule looks at the error of a step before it takes the next",
    "user": "Newton's rule for the inverse ends when all values have settled",
}
"""What cannot go on without looking at a number."""


class Apart(TorchDispatchMode):
    """Refuses every operation that mixes devices, but for copies; `meta` alone lets numbers without
    axes pass.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kinds = {x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        if len(kinds) > 1 and func is not torch.ops.aten._to_copy.default:
            raise AssertionError(f"{func} mixes {sorted(kinds)}")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def apart() -> Iterator[None]:
    with Apart():  # type: ignore[no-untyped-call]
        yield


pytestmark = pytest.mark.usefixtures("apart")


def meta(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def elsewhere(*found: Tensor) -> None:
    assert all(x.device == META for x in found)


# --- the net itself -------------------------------------------------------------------------------


def test_a_number_of_the_host_beside_the_device_is_refused_even_without_axes() -> None:
    with pytest.raises(AssertionError, match="mixes"):
        meta(2) * torch.tensor(2.0)
    elsewhere(meta(2) * 2.0, torch.tensor(2.0).to(META) * meta(2))


# --- laws -----------------------------------------------------------------------------------------

EXACT = [entry.name for entry in datasets if entry.has_defaults and entry.cls().exact]


@pytest.mark.parametrize("name", EXACT)
def test_exact_laws_answer_where_the_points_are(name: str) -> None:
    law = datasets.create(name)
    assert law.on_device == (name not in ON_THE_HOST)
    if name in ON_THE_HOST:
        with pytest.raises(NotImplementedError, match="out of meta"):
            law.denoise(meta(5, law.dim), meta(1), meta(1))
        return
    x, level = meta(2, 5, law.dim), meta(2, 1)
    denoised, score = law.denoise(x, level, level), law.score(x, level, level)
    elsewhere(denoised, score, law.log_density(x, level, level), law.posterior_variance(x, level, level))
    assert denoised.shape == score.shape == x.shape
    elsewhere(law.denoise(meta(5, law.dim), 1.0, 0.5))  # type: ignore[arg-type]
    if law.mode_weights is not None:
        elsewhere(law.mode_of(meta(5, law.dim)))


@dataclasses.dataclass(frozen=True)
class Pictures(PointSet):
    """Pictures of 4 x 4 pixels with labels, so many that the host would take them point by point."""

    registered_name: ClassVar[str] = "pictures"

    @property
    def points(self) -> Tensor:
        return torch.randn(70, 16, generator=stream("pictures"), dtype=torch.float64)

    @property
    def labels(self) -> Tensor | None:
        return torch.arange(70) % 2

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 1, 4, 4


def test_many_points_in_many_dimensions_and_their_classes_answer_where_the_points_are() -> None:
    x, level = meta(5, 16), meta(1)
    for law in (Pictures(), PointsOfClass(Pictures(), 1)):
        elsewhere(law.denoise(x, level, level), law.posterior_variance(x, level, level))


def test_a_branch_that_is_not_taken_has_no_part_in_a_gradient() -> None:
    """On a device all branches of a law are computed everywhere: here one is beyond all numbers where
    it is not asked for.
    """
    tau = torch.tensor([2.0, 1e4], dtype=torch.float64, requires_grad=True)
    found = where_asked(tau < 10, lambda a, s, tau: a * s * torch.exp(tau), tau, tau, tau)
    (slope,) = torch.autograd.grad(found.sum(), tau)
    torch.testing.assert_close(found.tolist(), [4 * math.exp(2), 0.0])
    torch.testing.assert_close(slope.tolist(), [8 * math.exp(2), 0.0])


@pytest.mark.parametrize("name", degradations.names())
def test_degradations_map_points_where_they_are(name: str) -> None:
    elsewhere(degradations.create(name).observe(meta(5, 4), meta(5, 4)))


# --- schedules, levels, noise levels --------------------------------------------------------------


@pytest.mark.parametrize("name", schedules.names())
def test_schedules_are_formulas_where_the_times_are(name: str) -> None:
    schedule, t = schedules.create(name), meta(3)
    elsewhere(*(getattr(schedule, part)(t) for part in ("alpha", "sigma", "alpha_dot", "sigma_dot", "nsr")))
    if name in WAITS:
        with pytest.raises(NotImplementedError, match="out of meta"):
            schedule.time_of(t)
    else:
        elsewhere(schedule.time_of(t))


def test_levels_on_a_device_decide_by_the_host_and_give_levels_there() -> None:
    question = Question(samplers.create("heun"), 3, 4)
    levels = levels_for(question, [subject(Exact(), Gaussian(dim=2), EDM())] * 2)
    placed = levels_on(levels, META)
    assert [level.clean for level in placed] == [level.clean for level in levels]
    elsewhere(*(level.sigma for level in placed), placed[0].at(placed[1].time).alpha)
    assert placed[0].host is levels[0]
    twice = levels_on([placed[0], placed[0]], META)
    assert twice[0] is twice[1]
    assert levels_on(levels, HOST) == levels


@pytest.mark.parametrize("name", noise_distributions.names())
def test_noise_levels_are_drawn_where_the_quantiles_are(name: str) -> None:
    levels = noise_distributions.create(name)
    schedule = (
        next(s for s in map(schedules.create, schedules.names()) if not levels.refuses(s))
        if (levels.only is None)
        else EDM()
    )
    elsewhere(levels.quantile(meta(2, 3), schedule))


@pytest.mark.parametrize("name", [name for name in weightings.names() if name != "simple"])
def test_weights_are_found_where_the_noise_levels_are(name: str) -> None:
    weighting = weightings.create(name)
    schedule = next(s for s in map(schedules.create, schedules.names()) if not weighting.refuses(s))
    elsewhere(weighting.weight(meta(2, 3), schedule, 1.0), Circle.at(meta(3)).a)


# --- training and its models ----------------------------------------------------------------------

SMALL: dict[str, dict[str, Any]] = {
    "implicit-score-matching": {"trace": "hutchinson"},
    "ncsn-separate": {"levels": 2},
    "trained-classifier": {"steps": 2, "batch": 8, "width": 8, "depth": 1},
}
"""Parameters with which a name is quick, and does the same."""

TRAINED = [entry.name for entry in formulations if issubclass(entry.cls, Trained)]


def formulation_of(name: str) -> Formulation:
    return formulations.create(name, **SMALL.get(name, {}))


def law_for(formulation: Formulation, settings: Training) -> Dataset | None:
    """The first law that formulation and network serve."""
    for law in (Pictures() if settings.network.of_images else EightGaussians(), Gaussian(dim=2), TwoMoonsPosterior()):
        refused = isinstance(formulation, Trained) and formulation.refuses_network(law, settings)
        if not refused and formulation.refuses_dataset(law) is None:
            return law
    return None


def member_of(formulation: Formulation, law: Dataset) -> Member:
    return Member(law, formulation, formulation.own_schedule().fitted(law), "key")


def settings_for(architecture: str) -> Training:
    return Training(steps=1, batch=4, width=4, depth=1, data=20, network=architectures.create(architecture))


SERVED = [
    (name, architecture)
    for name in TRAINED
    for architecture in architectures.names()
    if law_for(formulation_of(name), settings_for(architecture)) is not None
]


@pytest.mark.parametrize(("name", "architecture"), SERVED)
def test_every_formulation_trains_every_network_that_serves_it_on_the_device(name: str, architecture: str) -> None:
    """The step is taken before anything is asked; then the losses are, which `meta` has not."""
    formulation, settings = formulation_of(name), settings_for(architecture)
    law = law_for(formulation, settings)
    assert law is not None
    data = examples(formulation, law, 20, stream("data"))
    taken: list[int] = []
    with pytest.raises(NotImplementedError, match="out of meta"):
        train([member_of(formulation, law)] * 2, [data] * 2, settings, lambda step, _: taken.append(step), META)
    assert taken == [1]


@pytest.mark.parametrize(
    "parameters", [{}, {"kind": "entropic"}, {"kind": "entropic", "probes": 2}, {"kind": "unbalanced"}]
)
def test_every_kind_of_action_trains_and_is_followed_on_the_device(parameters: dict[str, Any]) -> None:
    formulation, law = formulations.create("action-matching", **parameters), Gaussian(dim=2)
    settings = Training(steps=1, batch=4, width=4, depth=1, data=20)
    taken: list[int] = []
    with pytest.raises(NotImplementedError, match="out of meta"):
        train(
            [member_of(formulation, law)],
            [law.sample(20, stream("data"))],
            settings,
            lambda step, _: taken.append(step),
            META,
        )
    assert taken == [1]
    subjects, question = (
        [subject(formulation, law, formulation.own_schedule())],
        Question(samplers.create("action"), 2, 5),
    )
    elsewhere(*states(model_of(formulation, law, 1), question, subjects, levels_for(question, subjects)))


def test_the_exact_trace_of_implicit_score_matching_is_found_on_the_device() -> None:
    formulation, law = formulations.create("implicit-score-matching"), Gaussian(dim=2)
    settings = Training(steps=1, batch=4, width=4, depth=1, data=20)
    with pytest.raises(NotImplementedError, match="out of meta"):
        train([member_of(formulation, law)], [law.sample(20, stream("data"))], settings, device=META)


def model_of(formulation: Formulation, law: Dataset, members: int = 2) -> Any:
    """An untrained stack on the device, or the exact one."""
    if not isinstance(formulation, Trained):
        return ExactDenoiser([law] * members)
    settings = Training(steps=1, width=8, depth=1)
    network = formulation.network(law, settings)
    rows = network.initialise([stream("init", m) for m in range(members)]).to(META)
    return formulation.objective.model(network, rows, [member_of(formulation, law)] * members)


@pytest.mark.parametrize("name", TRAINED)
def test_the_models_of_every_formulation_answer_on_the_device(name: str) -> None:
    formulation = formulation_of(name)
    law = law_for(formulation, Training())
    assert law is not None
    model = counted(model_of(formulation, law))[0]
    assert device_of(model) == META
    x, level = meta(2, 5, law.dim), meta(2)
    if isinstance(model, Denoiser):
        elsewhere(model(x, level, level))
    if isinstance(model, LabelledDenoiser):
        elsewhere(model.labelled(x, level, level, torch.tensor([0, 1, -1, 0, 1])))
    if isinstance(model, ActionModel):
        elsewhere(model.action(x, level, level).slope)
    if isinstance(model, Decoder):
        elsewhere(model.decode(meta(2, 5, model.latent_dim())), model.decoder_std())
    if isinstance(model, Encoder):
        elsewhere(*model.encode(x))
    if isinstance(model, LatentVariableModel):
        elsewhere(model.bound(x, meta(2, 5, model.latent_dim())).bound)


class Copying(TorchDispatchMode):
    """Counts the copies from the host, each of which a captured graph would read from memory that is
    gone.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.copies: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and found.device == META:
            self.copies += [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.device == HOST]
        return found


def test_a_copy_from_the_host_is_counted() -> None:
    with Copying() as copying:
        (torch.ones(2) * 2).to(META)
        meta(2) * 2.0
    assert len(copying.copies) == 1


CONDITIONED = [name for name in TRAINED if isinstance(formulation_of(name), Recipe)]


@pytest.mark.parametrize("name", CONDITIONED)
def test_what_is_known_of_a_noise_level_is_copied_once(name: str) -> None:
    """A graph of any formulation's networks holds it: copied when first asked for, and never again."""
    formulation = formulation_of(name)
    law = law_for(formulation, Training())
    assert law is not None
    one, nsr = member_of(formulation, law), meta(3)
    elsewhere(one.condition(nsr))
    with Copying() as copying:
        elsewhere(one.condition(nsr), one.coefficients(Circle.at(nsr)).c_in)
    assert copying.copies == []


@pytest.mark.parametrize("name", TRAINED)
def test_the_answers_of_a_denoiser_copy_nothing_after_the_first(name: str) -> None:
    formulation = formulation_of(name)
    law = law_for(formulation, Training())
    assert law is not None
    model = model_of(formulation, law)
    if type(model).__call__ is not NetworkDenoiser.__call__:
        pytest.skip("it captures nothing")
    x, level = meta(2, 5, law.dim), meta(2)
    model.answers(x, level, level)
    with Copying() as copying:
        model.answers(x, level, level)
    assert copying.copies == []


@pytest.mark.parametrize("of", [*schedules.names(), "eight_gaussians"])
def test_what_lies_on_a_device_stays_there_when_its_owner_travels(of: str) -> None:
    """Answers travel to processes that may have no such device."""
    owner = EightGaussians() if of == "eight_gaussians" else schedules.create(of)
    if isinstance(owner, Schedule):
        owner.alpha(meta(3))
    else:
        owner.denoise(meta(5, 2), meta(1), meta(1))
    travelling: list[Tensor] = []

    class Looking(pickle.Pickler):
        def reducer_override(self, given: Any) -> Any:
            travelling.extend([given] if isinstance(given, Tensor) and given.device == META else [])
            return NotImplemented

    Looking(io.BytesIO()).dump(owner)
    assert travelling == []


def test_a_module_of_ones_own_says_where_it_is() -> None:
    assert OwnDenoiser(lambda y, sigma: y).device == HOST  # noqa: ARG005
    module = torch.nn.Bilinear(2, 1, 2, device="meta")
    denoiser = OwnDenoiser(_Rowwise(module), sigma_shape="rows")
    assert denoiser.device == META
    elsewhere(denoiser(meta(1, 5, 2), meta(1), meta(1)))


class _Rowwise(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, y: Tensor, sigma: Tensor) -> Tensor:
        found: Tensor = self.inner(y, sigma[:, None])
        return found


class Shrinking(torch.nn.Module):
    """A network somebody has, in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, device=META))

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        elsewhere(x, told)
        return self.weight * x / (1 + told[:, None] ** 2)


@pytest.mark.parametrize("predicts", get_args(Predicts))
def test_a_given_network_answers_on_its_device(predicts: Predicts) -> None:
    model = given_denoiser(Shrinking(), predicts, "time", schedules.create("vp-linear"))
    elsewhere(model(meta(1, 5, 2), meta(1), meta(1)))


def test_the_exact_answer_between_two_data_sets_is_found_on_the_device() -> None:
    between = formulations.create("exact-between", source=EightGaussians())
    assert isinstance(between, ExactBetween)
    law = Gaussian(dim=2)
    x, level = meta(2, 5, 2), meta(2)
    elsewhere(between.model_of([law] * 2)(x, level, level))
    subjects = [subject(between, law, between.own_schedule())] * 2
    question = Question(samplers.create("euler"), 3, 5)
    elsewhere(*states(between.model_of([law] * 2), question, subjects, levels_for(question, subjects), META))


def test_every_formulation_without_a_network_of_its_own_is_asked_above() -> None:
    rest = {entry.name for entry in formulations} - set(TRAINED)
    assert rest == {"exact", "exact-between", "given"}


# --- samplers -------------------------------------------------------------------------------------


def subject(formulation: Formulation, law: Dataset, schedule: Schedule) -> Subject:
    return Subject(law, formulation, schedule, grids.create(schedule.own_grid), "stream", 0)


def question_for(name: str) -> tuple[Formulation, Dataset, Schedule]:
    """What a sampler can be asked with: the exact model if it serves, else the first that does."""
    sampler = samplers.create(name)
    for known in ("exact", *TRAINED):
        formulation = formulations.create(known)
        law = law_for(formulation, Training())
        for schedule in (formulation.own_schedule(), *map(schedules.create, ("edm", "vp-linear", "ddpm-linear"))):
            if law and issubclass(formulation.gives, sampler.needs) and not sampler.refuses(schedule):
                return formulation, law, schedule.fitted(law)
    raise AssertionError(name)


@pytest.mark.parametrize("name", [entry.name for entry in samplers if entry.has_defaults])
def test_every_sampler_goes_all_its_way_on_the_device(name: str) -> None:
    formulation, law, schedule = question_for(name)
    question = Question(samplers.create(name), 3, 5)
    subjects = [subject(formulation, law, schedule)] * (1 if question.sampler.adaptive else 2)
    model = model_of(formulation, law, len(subjects))
    path = states(model, question, subjects, levels_for(question, subjects), META)
    elsewhere(next(path))
    if name in WAITS:
        with pytest.raises(NotImplementedError, match="out of meta"):
            list(path)
    else:
        elsewhere(*path)


PEERS: dict[str, tuple[str, dict[str, str]]] = {
    "azula": ("edm", {"sampler": "EulerSampler"}),
    "diffusers": ("ddpm-linear", {"scheduler": "DDIMScheduler"}),
    "k-diffusion": ("edm", {"sampler": "sample_heun"}),
}


def test_every_sampler_without_defaults_is_one_of_a_peer() -> None:
    assert {entry.name for entry in samplers if not entry.has_defaults} == set(PEERS)


@pytest.mark.parametrize("name", PEERS)
def test_a_peers_sampler_goes_all_its_way_on_the_device(name: str) -> None:
    schedule, options = PEERS[name]
    law, on = EightGaussians(), schedules.create(schedule).fitted(EightGaussians())
    question = Question(samplers.create(name, **options), 3, 5)
    subjects = [subject(Exact(), law, on)] * 2
    path = states(ExactDenoiser([law] * 2), question, subjects, levels_for(question, subjects), META)
    if name in WAITS:
        with pytest.raises((NotImplementedError, RuntimeError), match=r"(out of|on) meta"):
            list(path)
    else:
        found = list(path)
        assert len(found) == 4
        elsewhere(*found)


@pytest.mark.parametrize("schedule", schedules.names())
def test_a_sampler_between_levels_and_one_with_noise_pass_every_schedule_on_the_device(schedule: str) -> None:
    law = EightGaussians()
    on = schedules.create(schedule).fitted(law)
    subjects = [subject(Exact(), law, on)] * 2
    for name, parameters in (
        ("rk2", {"alpha": 0.5}),
        ("churn", {}),
        ("ancestral", {}),
        ("langevin", {"start_from": "data"}),
    ):
        sampler = samplers.create(name, **parameters)
        if sampler.refuses(on):
            continue
        question = Question(sampler, 3, 5)
        elsewhere(*states(ExactDenoiser([law] * 2), question, subjects, levels_for(question, subjects), META))


class _Launches(TorchDispatchMode):
    """Counts what is started on the device, views aside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.count += isinstance(found, Tensor) and found.device == META and not func.is_view
        return found


@pytest.mark.parametrize("name", ["euler", "heun", "ddim", "dpmpp-2m"])
def test_a_step_starts_little_beside_the_evaluations_which_a_graph_holds(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    formulation, law = formulation_of("edm"), EightGaussians()
    subjects = [subject(formulation, law, formulation.own_schedule().fitted(law))] * 8
    question = Question(samplers.create(name), 8, 16)
    model, within, evaluations, answers = model_of(formulation, law, 8), 0, 0, NetworkDenoiser.answers

    def seen(self: Any, *given: Any) -> Tensor:
        nonlocal within, evaluations
        before, found = started.count, answers(self, *given)
        within, evaluations = within + started.count - before, evaluations + 1
        return found

    monkeypatch.setattr(NetworkDenoiser, "answers", seen)
    with _Launches() as started:
        path = states(model, question, subjects, levels_for(question, subjects), META)
        next(path)
        begun = started.count
        for _ in range(4):
            next(path)
    beside = started.count - begun - within
    assert evaluations >= 4
    assert 0 < beside <= 20 * evaluations < within


# --- guidance -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", guidances.names())
def test_every_guidance_steers_on_the_device(name: str) -> None:
    guidance = guidances.create(name, **SMALL.get(name, {}))
    laws = (EightGaussians(), EightGaussians())
    x, level = meta(2, 5, 2), meta(2)
    elsewhere(Guided(guidance, ExactDenoiser(laws), laws)(x, level, level))


@pytest.mark.parametrize("likelihood", ["moments", "prior", "point"])
def test_an_observation_without_a_closed_form_steers_on_the_device(likelihood: str) -> None:
    laws = (EightGaussians(), Gaussian(dim=2))
    x, level = meta(2, 5, 2), meta(2)
    guidance = guidances.create("observation", likelihood=likelihood)
    elsewhere(Guided(guidance, ExactDenoiser(laws), laws)(x, level, level))


# --- metrics --------------------------------------------------------------------------------------


class _Asked(Exception):
    """A model was asked."""


class _Spy:
    """A denoiser on the device that only says that it was asked there."""

    device = META

    def __call__(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        elsewhere(x, alpha, sigma)
        raise _Asked


@pytest.mark.parametrize("name", [name for name in metrics.names() if issubclass(metrics.find(name), ModelMetric)])
def test_metrics_of_models_ask_a_model_where_it_is(name: str) -> None:
    metric: Any = metrics.create(name)
    law = Gaussian(dim=2)
    schedule = next(s for s in map(schedules.create, ("edm", "ddpm-linear")) if not metric.refuses_model(_Spy, s))
    with pytest.raises(NotImplementedError if name in WAITS else _Asked):
        metric.evaluate(_Spy(), law, schedule)


@pytest.mark.parametrize("name", [name for name in metrics.names() if not issubclass(metrics.find(name), ModelMetric)])
def test_metrics_of_samples_measure_on_the_host(name: str) -> None:
    """A metric is one number, found by sorting, transport and quadrature: samples are copied first."""
    metric: Any = metrics.create(name)
    whole = [entry.cls() for entry in datasets if entry.has_defaults]
    laws = [*whole, *(one for law in whole if law.classes and (one := law.of_class(0)))]
    law = next(law for law in laws if metric.refuses(law) is None)
    samples = meta(20, law.dim)
    with pytest.raises(NotImplementedError, match="out of meta"):
        metric.evaluate(samples, law if metric.of == "samples" else samples)


def test_every_formulation_and_every_network_are_among_those_that_train() -> None:
    assert {name for name, _ in SERVED} == set(TRAINED)
    assert {architecture for _, architecture in SERVED} == set(architectures.names())


def test_every_exception_is_there() -> None:
    assert set(ON_THE_HOST) <= set(datasets.names())
    assert set(WAITS) <= {*samplers.names(), *schedules.names(), *metrics.names()}
