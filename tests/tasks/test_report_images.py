"""Samples that are images are shown as images: every pixel where it belongs, beside the data, in
the one file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tasks.data import Digits
from tasks.plain import Spec
from tasks.report.lookup.targets import Target
from tasks.report.numbers.curves import Panel, Series, tabulate
from tasks.report.numbers.kept import Kept
from tasks.report.numbers.sheets import SIDE, sheets_of
from tasks.report.pictures import images
from tests.tasks.chosen import answers_to
from tests.tasks.page_reader import unpacked
from tests.tasks.real_page import page_of_all_kinds, together

pytestmark = together

TARGET = Target("digits", Digits())


def sheet_of(trace: Spec) -> np.ndarray:
    return unpacked(trace["z"])


EDM = Series(0, "edm", "edm", "edm", 0, (0,))


@pytest.fixture(scope="module")
def html() -> str:
    return page_of_all_kinds()


def kept_of(values: np.ndarray, steps: Sequence[int] = (18,)) -> list[Kept]:
    return [Kept(Panel("heun"), EDM, 0, dict.fromkeys(steps, values))]


def test_every_pixel_is_where_it_belongs() -> None:
    values = Digits().points.numpy()[:40]
    sheets = sheets_of(TARGET, kept_of(values), (1, 8, 8))
    assert (sheets.low, sheets.high) == (-1, 1)
    (picture,) = images.pictures(kept_of(values), sheets)
    sheet = sheet_of(picture.spec["data"][0])
    side = SIDE
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
    sheets = sheets_of(TARGET, kept_of(values), (1, 8, 8))
    sheet = sheet_of(images.pictures(kept_of(values), sheets)[0].spec["data"][0])
    assert [int(sheet[0, 9 * k]) for k in range(4)] == [255, 0, 31, 255]


def test_channels_are_averaged_and_large_images_shown_in_smaller_numbers() -> None:
    values = np.random.default_rng(0).normal(size=(9, 3 * 96 * 96))
    sheets = sheets_of(Target("mine", None), kept_of(values), (3, 96, 96))
    assert sheets.across == 1
    assert images.data_picture(sheets) is None
    expected = values[0].reshape(3, 96, 96).mean(0)
    shares = (expected - sheets.low) / (sheets.high - sheets.low)
    np.testing.assert_allclose(sheets.first(values), shares.clip(0, 1), rtol=0, atol=1e-12)


def test_the_page_shows_sheets_beside_the_data_and_images_on_their_way(html: str) -> None:
    assert "<h3>Samples as images</h3>" in html
    assert "25 of the data, drawn at random; 8 x 8 pixels." in html
    assert "edm with heun, seed 0: the first 25 samples." in html
    assert "5 samples from noise (left) to image (right)" in html
    part = html[html.index("<h3>Samples as images</h3>") :]
    assert "Samples in the plane" not in part
    assert "as images." in part[part.index("<h3>On the way between noise and data</h3>") :][:200]


def test_the_page_stays_one_file_without_addresses(html: str) -> None:
    own = html[: html.index("plotly.js v")] if "plotly.js v" in html else html
    assert "default-src 'none'" in own
    assert "<img" not in own
    assert 'src="http' not in own


def test_the_last_level_on_the_way_is_the_image_and_the_first_is_noise_of_the_same_spread() -> None:
    points, sigma = Digits().points.numpy()[:40], np.array([80.0, 5.0, 0.0])
    states = points + sigma[:, None, None] * np.random.default_rng(0).standard_normal((3, 40, 64))
    path = states.astype(np.float32), np.stack([sigma, np.ones(3), sigma])
    row = {"dataset": "digits", "steps": 2, "mode-coverage": 0.1, "trajectory": path}
    answers = answers_to([{**row, "samples": states[-1].astype(np.float32)}])
    table = tabulate(answers)
    sheets = sheets_of(TARGET, kept_of(points), (1, 8, 8))
    (((_, (picture,)),), more) = images.trajectories(answers, table, "digits", TARGET, sheets)
    assert more == 0
    sheet = sheet_of(picture.spec["data"][0])
    assert sheet.shape == (5 * 9 - 1, 3 * 9 - 1)
    assert sheet[:8, -8:].tolist() == np.ceil(255 * (points[0] + 1) / 2).reshape(8, 8).tolist()
    assert 40 < sheet[:8, :8].astype(float).std() < 100
