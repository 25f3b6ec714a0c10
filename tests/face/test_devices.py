"""The public face on a device: where models are asked, where answers are, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import diffatlas as da
from diffusion.devices import device_of
from diffusion.inference.evaluation import _given
from diffusion.models import ExactDenoiser, capabilities_of
from diffusion.samplers import Heun

META = torch.device("meta")  # shapes, and no numbers: what is drawn there cannot be looked at

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


class Bent(torch.nn.Module):
    """A denoiser with a parameter."""

    def __init__(self, device: torch.device | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((2,), 0.5, device=device))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.weight * x / (1 + sigma)


def asked_at(seen: list[torch.device]) -> Any:
    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        seen.extend((x.device, sigma.device))
        return x / (1 + sigma)

    return denoiser


@needs_no_gpu
@pytest.mark.parametrize(
    "ask",
    [
        lambda: da.sample(Bent(), n=2, dim=2, steps=2, device="cuda"),
        lambda: da.exact("gaussian", device="cuda"),
        lambda: da.train("gaussian", steps=1, device="cuda"),
        lambda: da.exact("gaussian").to(torch.device("cuda:0")),
    ],
    ids=["sample", "exact", "train", "to"],
)
def test_a_gpu_where_there_is_none_is_refused_in_one_sentence(ask: Any) -> None:
    with pytest.raises(da.WrongValue, match=r"no GPU here that torch can use; accepted: auto, cpu$"):
        ask()


def test_an_unknown_device_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(da.WrongValue, match=r"found 'tpu'; accepted: auto, cpu, cuda, or a torch\.device"):
        da.sample("gaussian", n=2, device="tpu")


def as_torch_is_set() -> tuple[bool, str]:
    return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


@pytest.fixture
def tf32(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[bool, str]]:
    """A caller who has asked torch for TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield as_torch_is_set()
    torch.set_float32_matmul_precision(before)


def test_off_the_host_models_are_asked_in_all_digits_of_float32_and_the_callers_setting_comes_back(
    tf32: tuple[bool, str],
) -> None:
    seen: list[tuple[bool, str]] = []

    def spy(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(as_torch_is_set())
        return x / (1 + sigma)

    assert tf32 == (True, "high")
    model = da.model(spy, dim=2).to(META)
    x = torch.zeros(3, 2)
    model.denoise(x, 0.5)
    assert model.score(x, 0.5).device == META
    states = model.states(Heun(), steps=2, n=3)
    between = [as_torch_is_set() for _ in states]
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        model.log_likelihood(x)  # whose solver looks at its error
    asked = len(seen)
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):  # which looks at the error that it found
        da.evaluate(model, "eight_gaussians", [{"name": "score-error", "count": 2, "batch": 4}])
    assert len(seen) == asked + 1
    assert len(seen) >= 6
    assert set(seen) == {(False, "highest")}
    assert set(between) == {tf32}
    assert as_torch_is_set() == tf32
    seen.clear()
    da.sample(spy, n=3, dim=2, steps=2)
    assert set(seen) == {tf32}  # on the host nothing is set


def test_off_the_host_training_is_in_all_digits_of_float32(tf32: tuple[bool, str]) -> None:
    seen: list[tuple[bool, str]] = []
    small: dict[str, Any] = {"steps": 2, "batch": 4, "width": 4, "depth": 1, "data": 8}
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):  # in the end losses are looked at
        da.train("gaussian", **small, device=META, progress=lambda _: seen.append(as_torch_is_set()))
    assert seen == [(False, "highest")] * 2
    assert as_torch_is_set() == tf32


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="this torch has no finer settings")
def test_a_setting_of_convolutions_alone_is_overruled_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    conv: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    before, conv.fp32_precision = conv.fp32_precision, "tf32"
    seen: list[str] = []

    def spy(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(conv.fp32_precision)
        return x / (1 + sigma)

    da.model(spy, dim=2).to(META).denoise(torch.zeros(3, 2), 0.5)
    after, conv.fp32_precision = conv.fp32_precision, before
    assert (seen, after) == (["ieee"], "tf32")


@needs_no_gpu
def test_auto_is_the_processor_where_there_is_no_gpu_and_changes_no_bit() -> None:
    plain = da.sample("eight_gaussians", n=4, steps=3)
    for device in ("auto", "cpu"):
        assert torch.equal(da.sample("eight_gaussians", n=4, steps=3, device=device), plain)
    small: dict[str, Any] = {"steps": 2, "batch": 4, "width": 4, "depth": 1, "data": 8}
    trained, on_auto = da.train("gaussian", **small), da.train("gaussian", **small, device="auto")
    assert torch.equal(on_auto.sample(n=3, steps=2), trained.sample(n=3, steps=2))


def test_a_model_is_asked_on_its_device_and_answers_there() -> None:
    model = da.exact("eight_gaussians", device=META)
    assert model.device == META
    x = torch.zeros(3, 2)
    for found in (model.denoise(x, 0.5), model.score(x, 0.5), model.log_density(x, 0.5), model(x, torch.tensor(0.5))):
        assert found.device == META
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        model.sample(n=3, steps=2)  # which looks, in the end, whether samples are finite
    assert model.to("cpu").sample(n=3, steps=2).device.type == "cpu"


def test_a_trained_model_moves_with_its_weights() -> None:
    model = da.train("gaussian", steps=2, batch=4, width=4, depth=1, data=8)
    moved = model.to(META)
    assert moved.device == META
    assert moved.denoise(torch.zeros(3, 1), 0.5).device == META
    assert torch.equal(model.to("cpu").sample(n=3, steps=2), model.sample(n=3, steps=2))


def test_a_function_is_asked_where_it_is_told_and_a_module_where_its_parameters_are() -> None:
    seen: list[torch.device] = []
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        da.sample(asked_at(seen), n=3, dim=2, steps=2, device=META)
    assert set(seen) == {META}
    assert len(seen) == 6  # heun in two steps: all its way, before anybody looks
    seen.clear()
    da.sample(asked_at(seen), n=3, dim=2, steps=2)
    assert {device.type for device in seen} == {"cpu"}
    assert da.model(Bent(META), dim=2).device == META
    with pytest.raises(da.WrongValue, match="the module's parameters are on 'meta'; accepted: that device, or none"):
        da.sample(Bent(META), n=3, dim=2, device="cpu")


MEASURED: list[tuple[str, dict[str, Any], str]] = [
    ("edm", {"name": "score-error", "count": 2, "batch": 8}, "asked"),
    ("ddpm-linear", {"name": "elbo", "batch": 8}, "asked"),
    ("edm", {"name": "nll", "batch": 8}, "not asked"),  # its solver looks at the points before it asks
    ("edm", {"name": "bits-per-dim", "batch": 8}, "not asked"),
]


@pytest.mark.parametrize(("schedule", "metric", "asked"), MEASURED, ids=[metric["name"] for _, metric, _ in MEASURED])
def test_a_model_that_can_be_asked_anywhere_is_measured_on_the_device_that_it_was_taken_to(
    schedule: str, metric: dict[str, Any], asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.device] = []
    answers = ExactDenoiser.__call__

    def spy(self: ExactDenoiser, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        seen.extend((x.device, alpha.device, sigma.device))
        return answers(self, x, alpha, sigma)

    monkeypatch.setattr(ExactDenoiser, "__call__", spy)
    model = da.exact("eight_gaussians", schedule)
    there = model.to(META)
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):  # in the end a number is looked at
        da.evaluate(there, "eight_gaussians", [metric])
    assert set(seen) == ({META} if asked == "asked" else set())
    here = da.evaluate(model, "eight_gaussians", [metric])
    assert {device.type for device in set(seen) - {META}} == {"cpu"}
    assert da.evaluate(there.to("cpu"), "eight_gaussians", [metric]) == here


def test_a_function_is_measured_on_the_device_that_it_was_taken_to() -> None:
    seen: list[torch.device] = []
    model = da.model(asked_at(seen), dim=2)
    metric = {"name": "score-error", "count": 2, "batch": 8}
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        da.evaluate(model.to(META), "eight_gaussians", [metric])
    assert set(seen) == {META}
    seen.clear()
    da.evaluate(model, "eight_gaussians", [metric])
    assert {device.type for device in seen} == {"cpu"}


def test_a_model_on_a_device_is_one_object_for_all_metrics_and_can_do_what_it_could() -> None:
    """Likelihoods in two units share a flow, which they know by the object that was asked."""
    model = da.exact("eight_gaussians")
    given = _given(model.to(META), model.dataset)
    found, again = given.model(), given.model()
    assert found is not None
    assert again is not None
    assert found.model is again.model
    assert device_of(found.model) == META
    assert capabilities_of(type(found.model)) == capabilities_of(ExactDenoiser)
    here = _given(model, model.dataset).model()
    assert here is not None
    assert here.model is model.model
