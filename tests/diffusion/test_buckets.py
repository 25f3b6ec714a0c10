"""Stacks as a GPU trains them, on the host: buckets filled with copies, steps that are replayed.

Everything but the capture itself runs here; in its place stands a recorder that does the work
again.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffusion.datasets import EightGaussians, Uniform
from diffusion.devices import HOST, _kept, indices, numbers
from diffusion.formulations import formulations
from diffusion.formulations.base import Trained
from diffusion.objectives.denoising import NetworkDenoiser
from diffusion.randomness import stream
from diffusion.replay import Recorder, Replayed, Work
from diffusion.training import Member, Training, train
from diffusion.training.placement import BUCKETS, Placement, bucket_of, filled, smaller

SMALL = Training(steps=12, batch=64, width=32, depth=2, data=256)
LAW = EightGaussians()


def again(work: Work) -> tuple[Callable[[], object], Tensor]:
    """Stands for a captured graph: what it leaves lies where it lay before."""
    work()  # a warm-up
    answer = work()
    return lambda: answer.copy_(work()), answer


IN_BUCKETS = Placement(HOST, drawn_there=True, bucket=8, static=True)


def member(name: str, key: str) -> tuple[Member, Tensor]:
    formulation = formulations.create(name)
    schedule = formulation.own_schedule().fitted(LAW)
    return Member(LAW, formulation, schedule, key), LAW.sample(256, stream("data", key))


def trained(
    given: list[tuple[Member, Tensor]], place: Placement, settings: Training = SMALL
) -> dict[str, list[Tensor]]:
    """Weights and losses by the member's key."""
    stack = train([one for one, _ in given], [data for _, data in given], settings, device=place)
    assert len(stack.errors) == len(given)
    return {one.key: [stack.rows[m], stack.losses[m]] for m, (one, _) in enumerate(given)}


def equal(found: dict[str, list[Tensor]], other: dict[str, list[Tensor]]) -> None:
    for key in found.keys() & other.keys():
        for one, two in zip(found[key], other[key], strict=True):
            assert torch.equal(one, two), key


MIXED = [member(name, f"{name} {seed}") for name in ("edm", "vp", "edm2") for seed in range(2)]
NOBODY = (MIXED[0][0], torch.full((256, 2), torch.nan, dtype=torch.float64))


def test_buckets_are_chosen_by_the_number_of_members_alone() -> None:
    assert [bucket_of(n) for n in (1, 8, 9, 32, 33, 128, 129, 256)] == [8, 8, 32, 32, 128, 128, 128, 128]
    assert [smaller(size) for size in BUCKETS] == [None, 8, 32]
    assert filled("abc", 5) == ["a", "b", "c", "a", "a"]
    assert filled("abc", None) == ["a", "b", "c"]
    assert Placement.on(HOST, 3) == Placement()
    there = Placement.on(torch.device("meta"), 9)
    assert (there.bucket, there.drawn_there, there.recorder) == (32, True, None)


@pytest.mark.parametrize("recorder", [None, again], ids=["eager", "replayed"])
def test_a_member_has_the_same_bits_in_any_place_beside_anybody_and_alone(
    recorder: Recorder | None,
) -> None:
    place = replace(IN_BUCKETS, recorder=recorder)
    together = trained(MIXED, place)
    equal(together, trained(MIXED[::-1], place))
    equal(together, trained(MIXED[3:4], place))
    beside_nan = train(
        [one for one, _ in (*MIXED[2:4], NOBODY)], [data for _, data in (*MIXED[2:4], NOBODY)], SMALL, device=place
    )
    assert beside_nan.errors[2]
    assert beside_nan.errors[:2] == (None, None)
    for m in range(2):
        assert torch.equal(beside_nan.rows[m], together[MIXED[2 + m][0].key][0])


def test_a_step_is_one_of_a_whole_bucket_however_few_there_are() -> None:
    """What is recorded is the loss of every member."""
    seen = []

    def looked_at(work: Work) -> tuple[Callable[[], object], Tensor]:
        found = again(work)
        seen.append(len(found[1]))
        return found

    stack = train([MIXED[0][0]], [MIXED[0][1]], SMALL, device=replace(IN_BUCKETS, recorder=looked_at))
    assert seen == [8]
    assert (len(stack.rows), len(stack.losses), len(stack.errors)) == (1, 1, 1)


def test_a_bucket_that_is_filled_more_than_once_leaves_the_same() -> None:
    many = [member("edm", str(seed)) for seed in range(11)]
    found = trained(many, IN_BUCKETS)
    assert len(found) == 11
    equal(found, trained(many[8:], IN_BUCKETS))


@pytest.mark.parametrize("name", ["edm2", "action-matching", "vae", "implicit-score-matching"])
def test_replayed_steps_have_the_bits_of_eager_ones_for_every_kind_of_objective(name: str) -> None:
    given = [member(name, "a"), member(name, "b")]
    found = trained(given, IN_BUCKETS), trained(given, replace(IN_BUCKETS, recorder=again))
    equal(*found)


def test_numbers_in_tensors_train_as_numbers_do() -> None:
    """To float32's rounding: the learning rate is one."""
    found, plain = trained(MIXED, IN_BUCKETS), trained(MIXED, replace(IN_BUCKETS, static=False))
    for key, (rows, losses) in found.items():
        torch.testing.assert_close(rows, plain[key][0], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(losses, plain[key][1], rtol=1e-3, atol=1e-5)


def test_a_block_of_steps_that_does_not_fit_is_drawn_in_parts_with_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = replace(SMALL, steps=128)  # two steps in each bin of losses
    whole = trained(MIXED[:1], IN_BUCKETS, settings)
    monkeypatch.setattr("diffusion.training.loop._DRAWN", 1)
    equal(whole, trained(MIXED[:1], IN_BUCKETS, settings))


def test_training_with_a_devices_noise_teaches_what_the_hosts_does() -> None:
    """Both end within a few percent of one loss."""
    law, settings = Uniform(), Training(steps=200, batch=128, width=16, depth=2, data=20_000)
    formulation = formulations.create("edm")
    assert isinstance(formulation, Trained)
    given = [Member(law, formulation, formulation.own_schedule(), key) for key in "abcdefgh"]
    data = [law.sample(20_000, stream("data", one.key)) for one in given]
    here, there = (
        train(given, data, settings, device=place).losses[:, -16:].mean(1) for place in (Placement(), IN_BUCKETS)
    )
    spread = torch.stack([here, there]).std(1).square().mean().sqrt()
    assert abs(float(here.mean() - there.mean())) < 5 * float(spread) * (2 / 8) ** 0.5  # one in 4,000 with 14 degrees


# --- sampling -------------------------------------------------------------------------------------


def test_a_device_asks_members_of_a_recipe_together_and_finds_what_the_host_finds() -> None:
    stack = train([one for one, _ in MIXED], [data for _, data in MIXED], SMALL)
    model = stack.denoiser
    assert isinstance(model, NetworkDenoiser)
    sigma = torch.linspace(0.1, 3.0, 6, dtype=torch.float64)
    alpha = torch.linspace(1.0, 0.5, 6, dtype=torch.float64)
    (here, c), (there, d) = model._level_by_level(alpha, sigma), model._recipe_by_recipe(alpha, sigma)
    for part in ("c_skip", "c_out", "c_in"):
        torch.testing.assert_close(getattr(there, part), getattr(here, part), rtol=1e-14, atol=0)
    torch.testing.assert_close(d, c, rtol=1e-6, atol=1e-6)
    assert (c.shape, c.dtype) == (d.shape, d.dtype)


def test_replayed_answers_have_the_bits_of_the_models() -> None:
    stack = train([one for one, _ in MIXED], [data for _, data in MIXED], SMALL)
    model = stack.denoiser
    assert isinstance(model, NetworkDenoiser)
    replayed = model.replayed(again)
    for n, level in ((50, 0.3), (50, 2.0), (20, 1.0), (50, 0.3)):
        x = torch.randn(6, n, 2, generator=stream("points", n, level), dtype=torch.float64)
        sigma = torch.full((6,), level, dtype=torch.float64)
        assert torch.equal(replayed(x, torch.ones_like(sigma), sigma), model(x, torch.ones_like(sigma), sigma))


# --- what replays ---------------------------------------------------------------------------------


def test_what_is_replayed_sees_new_inputs_and_leaves_what_it_changes_as_it_was_when_recorded() -> None:
    state = torch.zeros(3)
    calls = 0

    def count(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        state.add_(x)
        return 2 * state

    replayed = Replayed(count, [state], again)
    assert [replayed(torch.full((3,), float(i))).tolist() for i in (1, 2, 3)] == [[2.0] * 3, [6.0] * 3, [12.0] * 3]
    assert state.tolist() == [6.0] * 3
    assert calls == 2 + 3  # two that the recording undid
    state.zero_()
    assert replayed(torch.ones(3, dtype=torch.float64)).tolist() == [2.0] * 3  # of another kind: recorded anew


def test_what_cannot_be_recorded_is_called_and_says_so() -> None:
    state = torch.zeros(2)

    def refuses(work: Work) -> tuple[Callable[[], object], Tensor]:
        work()
        raise RuntimeError("operation not permitted when stream is capturing")

    replayed = Replayed(lambda x: state.add_(x).clone(), [state], refuses)
    with pytest.warns(UserWarning, match="not captured as a CUDA graph.*operation not permitted"):
        assert replayed(torch.ones(2)).tolist() == [1.0, 1.0]
    assert replayed(torch.ones(2)).tolist() == [2.0, 2.0]


def test_memory_that_runs_out_in_a_recording_is_told() -> None:
    def full(work: Work) -> tuple[Callable[[], object], Tensor]:  # noqa: ARG001
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Replayed(torch.sin, recorder=full)(torch.ones(2))


def test_a_recording_is_made_on_the_device_of_the_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph is captured on the current device, whatever the tensors' own: there it would be empty."""
    passed: list[object] = []

    @contextmanager
    def device_of(x: Tensor) -> Iterator[None]:
        passed.append(x.device)
        yield
        passed.append("back")

    def looked_at(work: Work) -> tuple[Callable[[], object], Tensor]:
        passed.append("recorded")
        return again(work)

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    Replayed(torch.sin, recorder=looked_at)(torch.ones(2, device="meta"))
    assert passed == [torch.device("meta"), "recorded", "back"]


def test_what_is_first_used_in_inference_mode_can_be_used_outside_of_it() -> None:
    there, weights = torch.device("meta"), torch.ones(2, requires_grad=True)
    _kept.cache_clear()
    replayed = Replayed(lambda x: 2 * x, recorder=again)
    with torch.inference_mode():
        first = replayed(torch.ones(2)).tolist()
        constants = [numbers([0.25, 3.0], there), indices([4, 2], there)]
    assert not any(one.is_inference() for one in constants)
    assert (first, replayed(torch.full((2,), 3.0)).tolist()) == ([2.0] * 2, [6.0] * 2)
    (weights * replayed(torch.ones(2))).sum().backward()
    assert weights.grad is not None


def test_a_recording_keeps_the_constants_that_it_reads() -> None:
    """Nobody else does, once so many others have been asked for."""
    there, seen = torch.device("meta"), list[weakref.ref[Tensor]]()

    def asked(x: Tensor) -> Tensor:
        constants = numbers([1.0, 7.0], there), indices([1, 0], there)
        seen.extend(weakref.ref(one) for one in constants)
        return (x * constants[0])[constants[1]]

    replayed = Replayed(asked, recorder=lambda work: (lambda: None, work()))
    replayed(torch.ones(2, dtype=torch.float64, device=there))
    _kept.cache_clear()
    assert [one() is None for one in seen] == [False, False]
    del replayed
    assert [one() is None for one in seen] == [True, True]


# --- memory that is given back --------------------------------------------------------------------


@pytest.fixture
def no_search_for_circles() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def watched(kept: list[weakref.ref[Tensor]]) -> Recorder:
    """`again`, with an eye on the memory of what it records."""

    def recorder(work: Work) -> tuple[Callable[[], object], Tensor]:
        found = again(work)
        kept.append(weakref.ref(found[1]))
        return found

    return recorder


@pytest.mark.usefixtures("no_search_for_circles")
@pytest.mark.parametrize("fails", [True, False])
def test_a_training_gives_its_recordings_back_when_it_ends(fails: bool) -> None:
    kept: list[weakref.ref[Tensor]] = []

    def progress(step: int, _: Tensor) -> None:
        assert kept[0]() is not None
        if fails and step > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    place = replace(IN_BUCKETS, recorder=watched(kept))
    ran_out = False
    try:
        train([MIXED[0][0]], [MIXED[0][1]], SMALL, progress, place)
    except torch.OutOfMemoryError:
        ran_out = True
    assert ran_out == fails
    assert [one() for one in kept] == [None]


@pytest.mark.usefixtures("no_search_for_circles")
def test_a_model_gives_its_recordings_back_when_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[weakref.ref[Tensor]] = []
    monkeypatch.setattr("diffusion.objectives.denoising.cuda_graph", watched(kept))
    stack = train([MIXED[0][0]], [MIXED[0][1]], SMALL)
    model = stack.select([0]).denoiser
    assert isinstance(model, NetworkDenoiser)
    level = torch.ones(1, dtype=torch.float64)
    model._replayed(torch.zeros(1, 5, 2, dtype=torch.float64), level, level)
    assert kept[0]() is not None
    replayed = model._replayed
    del model
    with pytest.raises(ReferenceError, match="keep it as long as"):
        replayed(torch.zeros(1, 6, 2, dtype=torch.float64), level, level)
    del replayed
    assert kept[0]() is None
