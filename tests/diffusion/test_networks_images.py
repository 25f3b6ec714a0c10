"""Networks for images: what they are told reaches the answer, members do not touch, and what they
are is what the papers say.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion.datasets import PointSet, Torus, Uniform
from diffusion.formulations import VP, ElucidatedDM
from diffusion.networks import Transformer, UNet, architectures
from diffusion.networks.base import Network
from diffusion.networks.image_blocks import ApartNetwork, attention, attention_arrays
from diffusion.networks.transformer import TransformerNetwork
from diffusion.networks.unet import UNetwork
from diffusion.randomness import stream
from diffusion.training import Member, Training, train

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORKS: dict[str, ApartNetwork] = {
    "unet": UNetwork((1, 8, 8), 8, 1, 2, attention=True),
    "unet of odd width, three levels, three colours": UNetwork((3, 8, 12), 5, 2, 3, attention=True, conditions=16),
    "unet on one level": UNetwork((1, 5, 3), 7, 1, 1, attention=False),
    "transformer": TransformerNetwork((1, 8, 8), 16, 2, 2),
    "transformer of pixels, odd width": TransformerNetwork((2, 3, 5), 9, 1, 1, conditions=20),
}
every_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())


@dataclasses.dataclass(frozen=True)
class Pictures(PointSet):
    """Four pictures of 6 x 6 pixels."""

    @property
    def points(self) -> Tensor:
        return torch.eye(36, dtype=torch.float64)[:4]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 1, 6, 6


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As a worker trains."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def dim(network: Any) -> int:
    return math.prod(network.image)


def shaken(network: Network, members: int = 1) -> Tensor:
    """Rows with no array left at zero, as after some training."""
    rows = network.initialise([stream("member", m) for m in range(members)])
    shake = torch.stack([torch.randn(network.size, generator=stream("shake", m)) for m in range(members)])
    return network.pack(network.unpack(rows + 0.2 * shake))


def question(network: Any, members: int = 1, batch: int = 3) -> tuple[Tensor, Tensor]:
    z = torch.randn(members, batch, dim(network), generator=stream("z"))
    return z, torch.randn(members, batch, network.conditions, generator=stream("c"))


# --- what every network owes ----------------------------------------------------------------------


@every_network
def test_a_fresh_network_answers_zero_and_a_shaken_one_in_the_shape_of_its_points(network: Any) -> None:
    z, c = question(network, 2)
    fresh = network.initialise([stream("fresh"), stream("other")])
    assert fresh.shape == (2, network.size)
    assert fresh.dtype == torch.float32
    assert torch.equal(network(fresh, z, c), torch.zeros_like(z))
    answer = network(shaken(network, 2), z, c)
    assert answer.shape == z.shape
    assert float(answer.std()) > 0.01
    assert not torch.equal(answer[0], answer[1])


@every_network
def test_rows_and_named_arrays_are_one_and_the_same(network: Any) -> None:
    rows = shaken(network, 3)
    named = network.unpack(rows)
    assert {name: tuple(value.shape[1:]) for name, value in named.items()} == network.shapes
    assert torch.equal(network.pack(named), rows)
    assert network.size % 32 == 0
    alone = network.initialise([stream("member", 2)])
    assert torch.equal(network.initialise([stream("member", m) for m in range(3)])[2:], alone)


@every_network
def test_every_parameter_point_and_condition_reaches_the_answer(network: Any) -> None:
    rows = shaken(network).requires_grad_()
    z, c = (part.requires_grad_() for part in question(network, batch=4))
    network(rows, z, c).square().sum().backward()
    assert rows.grad is not None
    for name, slope in network.unpack(rows.grad).items():
        assert torch.isfinite(slope).all(), name
        lost = (slope == 0).double().mean()
        assert lost == 0, name
    for part in (z, c):
        assert part.grad is not None
        assert (part.grad != 0).all()


@every_network
def test_gradients_are_those_of_differences_and_can_be_differentiated_again(network: Any) -> None:
    """In float64, with respect to points, as implicit objectives need it."""
    rows = shaken(network).double()
    z, c = (part.double() for part in question(network, batch=2))
    z.requires_grad_()
    direction = torch.randn(z.shape, generator=stream("direction"), dtype=torch.float64)
    (slope,) = torch.autograd.grad(network(rows, z, c).square().sum(), z, create_graph=True)
    step = 1e-5 * direction
    with torch.no_grad():
        ahead, behind = (network(rows, z + sign * step, c).square().sum() for sign in (1, -1))
    assert float((slope * direction).sum().detach()) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-5)
    (second,) = torch.autograd.grad((slope * direction).sum(), z)
    further, back = z.detach() + step, z.detach() - step
    slopes = []
    for place in (further, back):
        place.requires_grad_()
        slopes.append(torch.autograd.grad(network(rows, place, c).square().sum(), place)[0])
    torch.testing.assert_close(second, (slopes[0] - slopes[1]) / 2e-5, rtol=1e-4, atol=1e-5 * float(second.abs().max()))


@every_network
def test_one_condition_for_all_is_the_same_condition_for_each(network: Any) -> None:
    rows = shaken(network)
    z, c = question(network, batch=5)
    with torch.no_grad():
        torch.testing.assert_close(
            network(rows, z, c[:, :1]), network(rows, z, c[:, :1].expand_as(c)), rtol=1e-4, atol=1e-5
        )


@every_network
@pytest.mark.parametrize("batch", [1, 5, 16])
def test_outputs_and_gradients_of_a_member_do_not_depend_on_its_stack(network: Any, batch: int) -> None:
    rows = shaken(network, 5)
    z, c = question(network, 5, batch)

    def answer(members: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        weights, points = rows[members].clone().requires_grad_(), z[members].clone().requires_grad_()
        out = network(weights, points, c[members])
        (out - 1).square().sum().backward()
        assert weights.grad is not None
        assert points.grad is not None
        return out.detach(), weights.grad, points.grad

    whole = answer(list(range(5)))
    for members in ([0], [3], [4, 1], [4, 3, 2, 1]):
        for found, among_all in zip(answer(members), whole, strict=True):
            assert torch.equal(found, among_all[members])


@every_network
def test_not_a_number_stays_with_its_member(network: Any) -> None:
    rows, (z, c) = shaken(network, 3), question(network, 3)
    healthy = network(rows, z, c)
    z[1, 0, 0] = math.nan
    sick = network(rows, z, c)
    assert torch.isnan(sick[1]).any()
    assert torch.equal(sick[[0, 2]], healthy[[0, 2]])


@every_network
def test_a_network_learns_one_picture_by_heart(network: Any) -> None:
    """From one noisy picture to the clean one: the loss falls to a thousandth."""
    rows = network.initialise([stream("heart")]).requires_grad_()
    z, c = question(network, batch=1)
    target = torch.randn(z.shape, generator=stream("target"))
    optimiser = torch.optim.Adam([rows], lr=1e-2)
    losses = []
    for _ in range(150):
        loss = (network(rows, z, c) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert min(losses) < 1e-3 * losses[0]


@pytest.mark.parametrize("name", ["unet", "transformer"])
def test_a_trained_members_bits_do_not_depend_on_its_stack(name: str) -> None:
    """Weights, losses and the denoiser, of two formulations with two seeds each."""
    settings = Training(steps=6, batch=7, width=8, depth=1, network=architectures.create(name))
    members = [
        Member(Pictures(), formulation, formulation.own_schedule(), f"{formulation.registered_name} {seed}")
        for formulation in (ElucidatedDM(), VP())
        for seed in (0, 1)
    ]

    def bits(chosen: list[int]) -> list[tuple[bytes, ...]]:
        stack = train([members[m] for m in chosen], [Pictures().points] * len(chosen), settings)
        x = torch.randn(1, 11, 36, generator=stream("question"), dtype=torch.float64).expand(len(chosen), 11, 36)
        level = torch.full((len(chosen),), 0.6, dtype=torch.float64)
        denoised = stack.denoiser(x, level, level)
        return [
            tuple(part[m].numpy().tobytes() for part in (stack.rows, stack.losses, denoised))
            for m in range(len(chosen))
        ]

    whole = bits([0, 1, 2, 3])
    assert len(set(whole)) == 4
    for chosen in ([2], [3, 0], [1, 2, 3]):
        assert bits(chosen) == [whole[m] for m in chosen]


# --- as other devices want it ---------------------------------------------------------------------


@every_network
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_all_members_at_once_answer_as_one_by_one(
    network: Any, dtype: torch.dtype, tolerance: float, groups: int
) -> None:
    """Values, and gradients in parameters, points and conditions."""
    z, c = question(network, 4, 6)
    given = [part.to(dtype).requires_grad_() for part in (shaken(network, 4), z, c[:, :groups])]
    found = []
    for way in (network.one_by_one, network.all_at_once):
        answer = way(*given)
        found.append([answer.detach(), *torch.autograd.grad((answer - 1).square().sum(), given)])
    for one, other in zip(*found, strict=True):
        assert other.shape == one.shape
        assert other.dtype == dtype
        assert float((other - one).norm()) <= tolerance * float(one.norm())


@every_network
def test_all_members_at_once_are_differentiated_again_as_one_by_one(network: Any) -> None:
    rows, (z, c) = shaken(network, 2).double().requires_grad_(), question(network, 2, 3)
    found = []
    for way in (network.one_by_one, network.all_at_once):
        points = z.double().requires_grad_()
        (slope,) = torch.autograd.grad(way(rows, points, c.double()).square().sum(), points, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), rows)[0])
    assert float((found[1] - found[0]).norm()) <= 1e-11 * float(found[0].norm())


@every_network
def test_at_once_not_a_number_stays_with_its_member(network: Any) -> None:
    rows, (z, c) = shaken(network, 3), question(network, 3)
    healthy = network.all_at_once(rows, z, c)
    z[1, 0, 0] = math.nan
    sick = network.all_at_once(rows, z, c)
    assert torch.isnan(sick[1]).any()
    assert torch.equal(sick[[0, 2]], healthy[[0, 2]])


class _Started(TorchDispatchMode):
    """Counts the operations that are started."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@every_network
def test_off_the_processor_what_is_started_does_not_grow_with_the_members(network: Any) -> None:
    """There and back; torch's `meta` device stands for a GPU."""
    started = []
    for members in (2, 9):
        rows, z, c = (part.to("meta") for part in (shaken(network, members), *question(network, members, 6)))
        with _Started() as starting:
            answer = network(rows.requires_grad_(), z, c)
            answer.sum().backward()
        assert answer.shape == z.shape
        started.append(starting.count)
    assert started[0] == started[1]


@every_network
@pytest.mark.parametrize("members", [1, 8, 128])
def test_what_a_device_evaluates_at_once_has_a_bound_in_bytes(network: Any, members: int) -> None:
    """No tensor of an evaluation has more numbers than the bound is reckoned with: seen with one point."""
    largest = 0

    class Looking(_Started):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            found = func(*args, **(kwargs or {}))
            if isinstance(found, Tensor):
                largest = max(largest, found.numel())
            return found

    batch = 64  # so that no parameter is larger than what is made of points
    rows, z, c = (part.to("meta") for part in (shaken(network), *question(network, 1, batch)))
    with Looking(), torch.no_grad():
        network.member({name: value[0] for name, value in network.views(rows).items()}, z[0], c[0])
    assert largest <= max(batch * network.units, rows.numel())
    at_once = network.points_on_device(members)
    assert at_once % 64 == 0
    assert at_once == 64 or 4 * members * at_once * network.units <= 2**30


# --- what they are --------------------------------------------------------------------------------


def test_attention_is_the_softmax_of_products_of_its_heads() -> None:
    width, tokens, heads = 8, 5, 2
    parameters = {
        name: torch.randn(array.rows, array.columns, generator=stream(name), dtype=torch.float64)
        for name, array in attention_arrays("a", width, 1.0).items()
    }
    h = torch.randn(3, tokens, width, generator=stream("h"), dtype=torch.float64)
    joint = h @ parameters["a.joint.weight"]
    parts = []
    for head in range(heads):
        q, k, v = (joint[..., i * width + head * 4 : i * width + (head + 1) * 4] for i in range(3))
        parts.append(torch.nn.functional.scaled_dot_product_attention(q, k, v))
    expected = torch.cat(parts, -1) @ parameters["a.mix.weight"] + parameters["a.mix.bias"]
    torch.testing.assert_close(attention(parameters, "a", h, heads), expected, rtol=1e-10, atol=1e-10)


def test_a_unet_without_attention_on_one_level_sees_no_further_than_its_kernels_but_for_the_norms() -> None:
    """Shifting a picture inside a large empty frame shifts the answer: convolutions, and norms over
    the whole image.
    """
    network = UNetwork((1, 24, 24), 8, 1, 1, attention=False)
    rows = shaken(network)
    _, c = question(network, batch=1)
    picture = torch.zeros(1, 1, 24, 24)
    picture[0, 0, 9:13, 9:13] = torch.randn(4, 4, generator=stream("picture"))
    moved = picture.roll((2, -1), (2, 3))
    with torch.no_grad():
        answers = [network(rows, z.reshape(1, 1, -1), c).reshape(24, 24) for z in (picture, moved)]
    inside = slice(7, 17)
    torch.testing.assert_close(
        answers[0].roll((2, -1), (0, 1))[inside, inside], answers[1][inside, inside], rtol=1e-3, atol=1e-4
    )


def test_patches_of_a_transformer_are_squares_of_the_image_and_come_back() -> None:
    network = TransformerNetwork((2, 4, 6), 8, 1, 2)
    z = torch.randn(3, 48, generator=stream("patches"))
    tokens = network._patches(z)
    assert tokens.shape == (3, 6, 8)
    assert torch.equal(network._pixels(tokens), z)
    image = z.reshape(3, 2, 4, 6)
    assert torch.equal(tokens[:, 4].reshape(3, 2, 2, 2), image[:, :, 2:4, 2:4])


def test_a_transformer_without_places_does_not_know_where_a_patch_is() -> None:
    network = TransformerNetwork((1, 4, 4), 8, 2, 2)
    named = network.unpack(shaken(network))
    named["place"].zero_()
    rows = network.pack(named)
    z, c = question(network, batch=2)
    tokens = network._patches(z[0])
    order = [2, 0, 3, 1]
    with torch.no_grad():
        plain = network._patches(network(rows, z, c)[0])
        mixed = network._patches(network(rows, network._pixels(tokens[:, order])[None], c)[0])
    torch.testing.assert_close(mixed, plain[:, order], rtol=1e-4, atol=1e-5)


# --- what they refuse -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["unet", "transformer"])
@pytest.mark.parametrize("target", [Uniform(), Torus()], ids=lambda t: t.registered_name)
def test_networks_for_images_refuse_points_that_are_none(name: str, target: Any) -> None:
    architecture = architectures.create(name)
    assert architecture.refuses(Pictures()) is None
    assert f"'{name}' works on images" in str(architecture.refuses(target))
    with pytest.raises(ValueError, match=f"{name}: it maps images to images"):
        architecture.build(target.dim, 8, 1)


def test_sizes_that_do_not_divide_an_image_are_refused() -> None:
    assert "halves images 2 times, which 6 x 6 do not allow" in str(UNet(levels=3).refuses(Pictures()))
    assert "patch = 4 does not divide images of 6 x 6 pixels" in str(Transformer(patch=4).refuses(Pictures()))
    assert Transformer(patch=3).refuses(Pictures()) is None
    with pytest.raises(ValueError, match="unet: levels = 0; needed: from 1 to 6"):
        UNet(levels=0)
    with pytest.raises(ValueError, match="transformer: patch = 0; needed: 1 or more"):
        Transformer(patch=0)


@pytest.mark.parametrize("name", ["unet", "transformer"])
def test_conditions_may_be_longer_than_the_features_of_the_noise(name: str) -> None:
    network = architectures.create(name).build(64, 8, 1, conditions=23, image=(1, 8, 8))
    z = torch.randn(1, 2, 64, generator=stream("longer"))
    assert network(shaken(network), z, torch.randn(1, 2, 23, generator=stream("told"))).shape == z.shape
