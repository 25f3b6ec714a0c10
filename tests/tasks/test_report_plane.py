"""Samples in the plane: what is drawn is what is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffusion.datasets import Checkerboard, EightGaussians
from tasks.plain import Spec
from tasks.report import draw_report
from tasks.report.lookup.targets import Target
from tasks.report.numbers.curves import Panel, Series
from tasks.report.numbers.kept import Kept
from tasks.report.numbers.outlook import BINS, outlook_on, principal_axes
from tasks.report.pictures import plane
from tasks.report.pictures.style import one_byte
from tests.tasks.chosen import answers_to
from tests.tasks.page_reader import sections_of, unpacked


def kept_of(values: np.ndarray, n: int = 10) -> list[Kept]:
    return [Kept(Panel("heun"), Series(0, "edm", "edm", "edm", 0, (0,)), 0, {n: values})]


def test_the_target_and_its_own_samples_look_alike() -> None:
    target = Target("eight_gaussians", EightGaussians())
    samples = target.sample(5000)
    assert samples is not None
    seen = outlook_on(target, kept_of(samples), 2)
    of_target = plane.target_picture(seen)
    assert of_target is not None
    pictured, drawn = (
        unpacked(picture.spec["data"][0]["z"]).astype(float)
        for picture in (of_target, plane.pictures(kept_of(samples), seen)[0])
    )
    assert np.corrcoef(pictured.ravel(), drawn.ravel())[0, 1] > 0.95
    # rows are y, columns x: the modes on the axes are where they are
    middle = BINS // 2
    assert drawn[:, middle - 3 : middle + 3].sum() == pytest.approx(drawn[middle - 3 : middle + 3, :].sum(), rel=0.2)


def test_the_picture_is_the_right_way_round() -> None:
    values = np.random.default_rng(0).normal([3.0, 0.0], [1.0, 0.1], (4000, 2))
    seen = outlook_on(Target("mine", None), kept_of(values), 2)
    (picture,) = plane.pictures(kept_of(values), seen)
    counts = unpacked(picture.spec["data"][0]["z"]).astype(float)
    across, upwards = counts.sum(axis=0), counts.sum(axis=1)
    assert (across > 0).sum() > 3 * (upwards > 0).sum()
    assert plane.target_picture(seen) is None


def test_what_lies_outside_is_counted() -> None:
    target = Target("checkerboard", Checkerboard())
    samples = np.concatenate([target.sample(900), np.full((50, 2), 1e5), np.full((50, 2), np.nan)])
    seen = outlook_on(target, kept_of(samples), 2)
    assert seen.density(samples)[1] == pytest.approx(0.1, abs=0.01)
    assert "Outside the picture: up to 10 %" in plane.pictures(kept_of(samples), seen)[0].caption


@pytest.mark.parametrize("dim", [4, 7])
def test_in_many_dimensions_the_plane_of_largest_variance_is_drawn(dim: int) -> None:
    rng = np.random.default_rng(dim)
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    scales = np.array([3.0, 2.0] + [0.1] * (dim - 2))
    values = (rng.standard_normal((20_000, dim)) * scales) @ rotation.T
    axes, share = principal_axes(values, dim)
    assert np.abs(axes @ rotation[:, :2]) == pytest.approx(np.eye(2), abs=0.03)
    assert share == pytest.approx(13 / (13 + 0.01 * (dim - 2)), rel=1e-3)
    seen = outlook_on(Target("mine", None), kept_of(values), dim)
    assert f"Of {dim} dimensions" in seen.note
    assert seen.density(values)[1] < 0.03


def test_bytes_keep_what_is_small_visible_and_end_at_the_top() -> None:
    found = one_byte(np.array([[0.0, 1e-9, 0.5], [1.0, 7.0, 0.25]]))
    assert unpacked(found).tolist() == [[0, 1, 128], [255, 255, 64]]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_a_data_set_of_any_dimension_is_drawn_known_or_not(dim: int, known: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "points.npy"
    np.save(path, rng.standard_normal((200, dim)))
    samples = rng.standard_normal((300, dim)).astype(np.float32)
    states = rng.standard_normal((5, 300, dim)).astype(np.float32)
    ramp = np.linspace(1, 0, 5)
    rows: list[Spec] = [
        {"dataset": {"name": "from_file", "path": str(path)}, "steps": n, "sliced-w2": 0.1, "samples": samples}
        for n in (1, 4)
    ]
    rows[1]["trajectory"] = states, np.stack([ramp, 1 - ramp, ramp])
    answers = answers_to(rows)
    if not known:
        path.unlink()
    sections = sections_of(draw_report(answers))
    in_space = {1: "Distribution of the samples against N", 3: "Samples in space"}
    assert in_space.get(dim, "Samples in the plane against N") in sections
    assert ("On the way between noise and data" in sections) == (dim != 3)
