"""Samples that are images are shown as images: every pixel where it belongs, beside the data, in the one file."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from tasks.data import Digits
from tasks.report import draw_report
from tasks.report.lookup.targets import Target, target_of
from tasks.report.pictures import images
from tasks.report.pictures.kept import Kept
from tests.tasks.report_fixture import realistic, with_images

TARGET = Target("digits", Digits())


def sheet_of(trace):
    shape = [int(size) for size in trace["z"]["shape"].split(", ")]
    return np.frombuffer(base64.b64decode(trace["z"]["bdata"]), dtype=np.uint8).reshape(shape)


@pytest.fixture(scope="module")
def answers():
    return with_images(realistic(formulations=("vp", "edm"), samplers=("heun",), seeds=1, steps=(1, 5)), ("vp", "edm"))


@pytest.fixture(scope="module")
def html(answers):
    return draw_report(answers)


def kept_of(values, steps: tuple[int] = (18,)):
    class Label:
        label, title, shown_with = "edm", "heun", ()

    return [Kept(Label, Label, 0, dict.fromkeys(steps, values))]  # type: ignore[arg-type]


def test_every_pixel_is_where_it_belongs() -> None:
    values = Digits().points.numpy()[:40]
    sheets = images.sheets_of(TARGET, kept_of(values), (1, 8, 8))
    assert (sheets.low, sheets.high) == (-1, 1)
    (picture,) = images.pictures(kept_of(values), sheets)
    sheet = sheet_of(picture.spec["data"][0])
    side = images.SIDE
    assert sheet.shape == (side * 9 - 1, side * 9 - 1)
    for place in range(side**2):
        row, column = 9 * (place // side), 9 * (place % side)
        shown = sheet[row : row + 8, column : column + 8]
        assert shown.tolist() == np.ceil(255 * (values[place] + 1) / 2).reshape(8, 8).tolist()
    lines = sheet[8::9]
    assert set(lines.ravel().tolist()) == {int(np.ceil(255 * 0.12))}


def test_what_lies_outside_the_range_of_the_data_is_drawn_at_its_end_and_what_is_no_number_as_a_gap() -> None:
    values = np.full((4, 64), 7.0)
    values[1], values[2] = -7.0, np.nan
    sheets = images.sheets_of(TARGET, kept_of(values), (1, 8, 8))
    sheet = sheet_of(images.pictures(kept_of(values), sheets)[0].spec["data"][0])
    assert [int(sheet[0, 9 * k]) for k in range(4)] == [255, 0, 31, 255]


def test_channels_are_averaged_and_large_images_shown_in_smaller_numbers() -> None:
    values = np.random.default_rng(0).normal(size=(9, 3 * 96 * 96))
    sheets = images.sheets_of(Target("mine", None), kept_of(values), (3, 96, 96))
    assert sheets.across == 1
    assert images.data_picture(sheets) is None
    expected = values[0].reshape(3, 96, 96).mean(0)
    shares = (expected - sheets.low) / (sheets.high - sheets.low)
    np.testing.assert_allclose(sheets.first(values), shares.clip(0, 1), rtol=0, atol=1e-12)


def test_the_page_shows_sheets_beside_the_data_and_images_on_their_way(html) -> None:
    assert "<h3>Samples as images</h3>" in html
    assert "25 of the data, drawn at random; 8 x 8 pixels." in html
    assert "edm with heun, seed 0: the first 25 samples." in html
    assert "5 samples from noise (left) to image (right)" in html
    part = html[html.index("<h3>Samples as images</h3>") :]
    assert "Samples in the plane" not in part
    assert "as images." in part[part.index("<h3>On the way between noise and data</h3>") :][:200]
    assert "Fréchet distance of classifier features" in html or "fid-digits" in html


def test_the_page_stays_one_file_without_addresses(html) -> None:
    own = html[: html.index("plotly.js v")] if "plotly.js v" in html else html
    assert "default-src 'none'" in own
    assert "<img" not in own
    assert 'src="http' not in own


def test_the_last_level_on_the_way_is_the_image_and_the_first_is_noise_of_the_same_spread(answers) -> None:
    target = target_of("digits", answers.study)
    path = answers.trajectory("i-edm-edm-50")
    sheets = images.sheets_of(target, [], (1, 8, 8))

    class Label:
        label, shown_with = "edm", ()

    sheet = sheet_of(images._on_the_way(Label, "heun", path, target, sheets).spec["data"][0])  # type: ignore[arg-type]
    assert sheet.shape == (5 * 9 - 1, 10 * 9 - 1)
    last = sheet[:8, -8:]
    assert last.tolist() == np.ceil(255 * (Digits().points.numpy()[0] + 1) / 2).reshape(8, 8).tolist()
    first = sheet[:8, :8].astype(float)
    assert 40 < first.std() < 100


@pytest.mark.parametrize(
    ("label", "guidance"),
    [
        ("digits | all labels", {"name": "classifier-free", "labels": "all"}),
        ("digits | second-half of example 0", {"name": "inpainting", "coordinates": "second-half"}),
    ],
)
def test_samples_given_something_of_an_image_are_images_too(label: str, guidance: dict[str, str]) -> None:
    study = {"datasets": ["digits"], "samplers": [{"name": "heun", "guidance": guidance}]}
    target = target_of(label, study)
    assert target.law is not None
    assert target.image_shape == (1, 8, 8)
    values = Digits().points.numpy()[:30]
    sheets = images.sheets_of(target, kept_of(values), (1, 8, 8))
    assert images.data_picture(sheets) is not None
