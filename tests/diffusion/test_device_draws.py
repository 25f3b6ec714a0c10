"""Training noise as a GPU draws it: counter-based streams, the same whole numbers on every device.

All of it runs here on the host; statistical tests alarm in vain once in a million times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from diffusion.datasets import Gaussian
from diffusion.devices import HOST
from diffusion.formulations.denoising import ElucidatedDM
from diffusion.guidance import trained_classifier
from diffusion.objectives import CoupledLoss
from diffusion.objectives.base import Objective, trainable
from diffusion.philox import normals, philox, uniforms
from diffusion.randomness import MemberDraws, MemberStreams, examples, stream, stream_keys, uniform
from diffusion.training import Member, Training
from diffusion.training.lessons import drawn_on_device, drawn_on_host
from tests.diffusion import taught
from tests.diffusion.test_devices import TRAINED, formulation_of, law_for, member_of

FALSE_ALARM = 1e-6

KNOWN = [  # Random123 1.14, tests/kat_vectors: counter, key, answer of philox4x32 with ten rounds
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]

ON_THE_HOST = {
    trained_classifier.CrossEntropy: "what is known of the classes is measured on one member's data",
    CoupledLoss: "the other end of each pair is drawn by a data set, which draws on the host",
}
"""Objectives that do not draw on a device, and why."""


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def test_philox_gives_the_known_answers_of_its_authors_in_arrays_of_any_length() -> None:
    for counter, key, answer in KNOWN:
        for n in (1, 3, 4, 8, 67):  # whole vectors of a processor, and what is left of them
            columns = [torch.full((n,), word) for word in words(counter)]
            keys = [torch.full((n,), word) for word in words(key)]
            found = philox((columns[0], columns[1], columns[2], columns[3]), (keys[0], keys[1]))
            assert [part.tolist() for part in found] == [[word] * n for word in words(answer)]


def by_hand(counter: list[int], key: list[int]) -> list[int]:
    """The same in whole numbers without end."""
    x, k = list(counter), list(key)
    for _ in range(10):
        first, second = x[0] * 0xD2511F53, x[2] * 0xCD9E8D57
        x = [(second >> 32) ^ x[1] ^ k[0], second % 2**32, (first >> 32) ^ x[3] ^ k[1], first % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return x


def test_philox_agrees_with_whole_numbers_without_end() -> None:
    drawn = torch.randint(2**32, (6, 200), generator=stream("philox"))
    found = philox((drawn[0], drawn[1], drawn[2], drawn[3]), (drawn[4], drawn[5]))
    for i in range(200):
        column = drawn[:, i].tolist()
        assert [int(part[i]) for part in found] == by_hand(column[:4], column[4:])


def streams_of(*names: str, first: int = 0, steps: int = 10) -> MemberStreams:
    return MemberStreams(stream_keys([("test", name) for name in names]), first, steps)


def drawn(streams: MemberStreams, members: int, steps: int, count: int) -> list[Tensor]:
    """One draw of each kind, ``[members, steps, count]``."""
    draws = streams.of(range(members))
    found = [draws.uniform((members * steps, count)), draws.normal((members * steps, count))]
    found.append(draws.integers(10, (members * steps, count)).double())
    return [part.unflatten(0, (members, steps)) for part in found]


def test_numbers_have_their_laws_and_neighbours_in_every_direction_are_independent() -> None:
    """Kolmogorov and Smirnov's test of each law; correlations along counters, steps, members, draws
    and within a pair, as normal deviates.
    """
    members, steps, count = 4, 50, 512
    u, z, whole = drawn(streams_of(*"abcd", steps=steps), members, steps, count)
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > FALSE_ALARM
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > FALSE_ALARM
    counts = torch.bincount(whole.long().flatten(), minlength=10)
    assert stats.chisquare(counts.numpy()).pvalue > FALSE_ALARM
    score = (u - 0.5) * math.sqrt(12)
    pairs = {
        "within a pair": (z[..., 0::2], z[..., 1::2]),
        "length within a pair": (z[..., 0::2].square() - 1, z[..., 1::2].square() - 1),
        "next counter": (z[..., :-2], z[..., 2:]),
        "next step": (z[:, :-1], z[:, 1:]),
        "next member": (z[:-1], z[1:]),
        "another draw": (score, z),
        "sizes of another draw": (score, z.square() - 1),
    }
    allowed = stats.norm.isf(FALSE_ALARM / 2 / len(pairs))
    for name, (a, b) in pairs.items():
        product = (a * b).flatten()
        assert abs(float(product.mean() / product.std() * math.sqrt(len(product)))) < allowed, name


def test_the_ends_of_the_uniform_numbers_are_finite_normals() -> None:
    low, high = torch.zeros(1, dtype=torch.int64), torch.full((1,), 2**32 - 1)
    for a in (low, high):
        for b in (low, high):
            u, z = uniforms((a, a, b, b)), normals((a, a, b, b))
            assert 0 <= float(u.min()) <= float(u.max()) < 1
            assert z.isfinite().all()


class Highest(MemberDraws):
    """Draws the last number below one."""

    def uniform(self, shape: Sequence[int]) -> Tensor:
        return torch.full(tuple(shape), 1 - 2.0**-53, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_uniform_numbers_are_below_one_whatever_their_digits(dtype: torch.dtype) -> None:
    found = uniform((10, 3), Highest(streams_of("a"), [0], 10, [0], 1), dtype)
    assert (found.dtype, float(found.max())) == (dtype, 1 - 2.0 ** (-53 if dtype == torch.float64 else -24))
    ordinary = uniform((10, 500), streams_of("a").of([0]), dtype)
    assert torch.equal(ordinary, streams_of("a").of([0]).uniform((10, 500)).to(dtype))


def test_a_number_depends_on_its_member_step_draw_and_place_alone() -> None:
    together = drawn(streams_of("a", "b", "c"), 3, 10, 64)
    alone = drawn(streams_of("b"), 1, 10, 64)
    later = drawn(streams_of("c", "b", "a", first=4, steps=3), 3, 3, 64)
    wider = drawn(streams_of("a", "b", "c"), 3, 10, 128)
    for whole, one, block, wide in zip(together, alone, later, wider, strict=True):
        assert torch.equal(whole[1], one[0])
        assert torch.equal(whole[[2, 1, 0], 4:7], block)
        assert torch.equal(whole, wide[..., :64])


def test_several_members_draw_examples_from_their_own_sets() -> None:
    data = torch.arange(30.0)[:, None]
    draws = streams_of("a", "b", "c", steps=4).of([0, 1, 2])
    found = examples(data, (12, 200), draws).unflatten(0, (3, 4))
    for m in range(3):
        assert found[m].unique().tolist() == list(range(10 * m, 10 * m + 10))


def test_members_that_share_a_set_draw_from_it() -> None:
    data = torch.arange(30.0)[:, None]
    draws = streams_of("a", "b", "c", steps=4).of([0, 1, 2], sets=[2, 0, 2], held=3)
    found = examples(data, (12, 200), draws).unflatten(0, (3, 4))
    for m, first in enumerate((20, 0, 20)):
        assert found[m].unique().tolist() == list(range(first, first + 10))
    assert not torch.equal(found[0], found[2])


def test_a_set_is_on_the_device_once_whoever_learns_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two formulations on two seeds' sets, one of another length, and the copies that fill a bucket."""
    law = Gaussian(dim=2)
    sets = [law.sample(count, stream("set", count)) for count in (50, 60)] + [law.sample(50, stream("another"))]
    members, data = [], []
    for name in ("edm", "vp"):
        formulation = formulation_of(name)
        for key, samples in enumerate(sets):
            members += [Member(law, formulation, formulation.own_schedule(), f"{name} {key}")] * 2
            data += [samples] * 2
    objective = trainable(members[0]).objective
    apart = drawn_on_device(objective, members, [samples.clone() for samples in data], BATCH, HOST)(3, 7)
    held: dict[int, int] = {}
    batches = type(objective).batches

    def seen(self: Any, member: Member, samples: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        held[samples.data_ptr()] = len(samples)
        return batches(self, member, samples, *rest)

    monkeypatch.setattr(type(objective), "batches", seen)
    shared = drawn_on_device(objective, members, data, BATCH, HOST)(3, 7)
    assert sorted(held.values()) == [60, 100]
    for one, other in zip(shared, apart, strict=True):
        assert torch.equal(one, other)


def test_who_asks_for_other_rows_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="2 members draw 20 rows for 10 steps, asked for 10"):
        uniform((10, 3), streams_of("a", "b").of([0, 1]))


# --- every formulation ----------------------------------------------------------------------------

BATCH = 64


def member_and_data(name: str, key: str) -> tuple[Member, Tensor]:
    formulation = formulation_of(name)
    law = law_for(formulation, Training())
    assert law is not None
    data = taught.examples(formulation, law, 256, stream("data", key))
    one = member_of(formulation, law)
    return Member(one.dataset, one.formulation, one.schedule, key), data


def test_every_objective_draws_anywhere_or_says_why_not() -> None:
    found = {type(trainable(member_and_data(name, "a")[0]).objective) for name in TRAINED}
    assert {objective for objective in found if not objective.draws_anywhere} <= set(ON_THE_HOST)

    def below(cls: Any) -> set[Any]:
        return {cls, *(one for sub in cls.__subclasses__() for one in below(sub))}

    ours = {
        one
        for one in below(Objective)
        if one.__module__.startswith("diffusion.") and one.batches is not Objective.batches
    }
    assert {one for one in ours if not one.draws_anywhere} == set(ON_THE_HOST)


@pytest.mark.parametrize("name", TRAINED)
def test_every_formulation_draws_the_same_together_and_alone_and_by_the_law_of_the_host(name: str) -> None:
    """Equal bits, whoever draws beside it and whatever the block; and each number of a batch (its
    mean over examples in each step) is distributed as on the host.
    """
    given = [member_and_data(name, key) for key in "ab"]
    if type(trainable(given[0][0]).objective) in ON_THE_HOST:
        pytest.skip("its objective draws on the host")
    if trainable(given[0][0]).objective == ElucidatedDM().objective:  # one of another recipe beside them
        given.append(member_and_data("edm", "c"))
    members, data = [one for one, _ in given], [samples for _, samples in given]
    objective = trainable(members[0]).objective
    steps = 40
    together = drawn_on_device(objective, members, data, BATCH, HOST)(0, steps)
    for m in range(2):
        alone = drawn_on_device(objective, members[m : m + 1], data[m : m + 1], BATCH, HOST)
        blocks = [torch.cat(parts) for parts in zip(alone(0, 16), alone(16, steps), strict=True)]
        for whole, one in zip(together, blocks, strict=True):
            assert torch.equal(whole[:, m : m + 1], one)
    host = drawn_on_host(objective, members, data, BATCH, HOST)(0, steps)
    assert [(part.shape, part.dtype) for part in together] == [(part.shape, part.dtype) for part in host]
    pairs = [
        tuple(part.reshape(*part.shape[:3], -1)[:, :2, :, column].double().mean(2).flatten() for part in (there, here))
        for there, here in zip(together, host, strict=True)
        for column in range(here[0, 0, 0].numel())
    ]
    for a, b in pairs:
        if bool((a - a[0]).abs().max() < 1e-6):  # the same in every step
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        else:
            assert stats.ks_2samp(a.numpy(), b.numpy()).pvalue > FALSE_ALARM / len(pairs)
