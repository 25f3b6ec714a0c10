"""Targets read from a file: what is read, what is refused, and that a file's content is part of
what the target is.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from pydantic import ValidationError

from diffusion.datasets import FourPoints, datasets
from diffusion.datasets.degradations import GaussianNoise
from diffusion.guidance import NoisyObservation
from diffusion.metrics import NegativeLogLikelihood
from diffusion.randomness import stream
from diffusion.schedules import EDM
from tasks.data.from_file import FromFile
from tasks.study.components import build

POINTS = np.random.default_rng(0).normal(size=(40, 2))


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def npy(folder: Path, points: Any = POINTS, name: str = "points.npy") -> str:
    np.save(folder / name, np.asarray(points))
    return str(folder / name)


def refusal(path: str, **parameters: Any) -> str:
    with pytest.raises(ValueError, match=r"^from_file: ") as caught:
        FromFile(path, **parameters)
    text = str(caught.value)
    assert text.isprintable(), "one line that a terminal can show"
    return text


# --- what is read ---------------------------------------------------------------------------------


def formats(folder: Path) -> list[tuple[str, str | None]]:
    """The same points in every format that is understood."""
    npy(folder)
    np.savez(folder / "one.npz", points=POINTS)
    np.savez_compressed(folder / "two.npz", points=POINTS, other=POINTS[:3])
    np.save(folder / "fortran.npy", np.asfortranarray(POINTS))
    np.save(folder / "big_endian.npy", POINTS.astype(">f8"))
    zarr.create_array(folder / "array.zarr", data=POINTS)
    group = zarr.open_group(folder / "group.zarr", mode="w")
    group.create_array("points", data=POINTS)
    zarr.open_group(folder / "several.zarr", mode="w").create_array("points", data=POINTS)
    zarr.open_group(folder / "several.zarr", mode="a").create_array("other", data=POINTS[:5])
    (folder / "no_ending").write_bytes((folder / "points.npy").read_bytes())
    names = ["points.npy", "one.npz", "fortran.npy", "big_endian.npy", "array.zarr", "group.zarr", "no_ending"]
    return [
        *((str(folder / name), None) for name in names),
        *((str(folder / n), "points") for n in ("two.npz", "several.zarr")),
    ]


def test_every_format_gives_the_same_points_and_the_same_digest(tmp_path: Path) -> None:
    read = [FromFile(path, array) for path, array in formats(tmp_path)]
    for target in read:
        assert torch.equal(target.points, torch.from_numpy(POINTS))
    assert len({target.digest for target in read}) == 1
    assert len(read[0].digest) == 64


@pytest.mark.parametrize("dtype", ["i1", "u2", "i8", "f2", "f4", "f8", "longdouble"])
def test_real_numbers_of_every_type_become_float64(tmp_path: Path, dtype: str) -> None:
    values = np.array([3, 1, 4, 1, 5], dtype=dtype)
    target = FromFile(npy(tmp_path, values))
    assert target.points.dtype == torch.float64
    assert target.points.tolist() == [[3], [1], [4], [1], [5]]
    assert target.dim == 1
    assert target.has_cdf
    x, u = torch.tensor([[0.0, 1.0, 3.5, 9.0], [0.0, 0.4, 0.5, 1.0]], dtype=torch.float64)
    assert target.cdf(x).tolist() == [0, 0.4, 0.6, 1]
    assert target.quantile(u).tolist() == [1, 1, 3, 5]


def test_moments_and_samples_are_those_of_the_points(tmp_path: Path) -> None:
    target = FromFile(npy(tmp_path))
    assert target.mean == pytest.approx(POINTS.mean(0).tolist(), rel=1e-14)
    assert target.std == pytest.approx(math.sqrt(POINTS.var(0).mean()), rel=1e-14)
    assert (target.dim, target.has_cdf, target.mode_weights) == (2, False, None)
    n = 40_000
    x = target.sample(n, stream("file"))
    assert torch.equal(x, target.sample(n, stream("file")))
    known = {tuple(point): k for k, point in enumerate(POINTS.tolist())}
    drawn = np.bincount([known[tuple(point)] for point in x.tolist()], minlength=40)
    assert (abs(drawn / n - 1 / 40) <= 4.5 * math.sqrt(1 / 40 * 39 / 40 / n)).all()  # false alarms 40 x 7e-6


def test_a_file_of_four_points_has_the_exact_answers_of_the_registered_target(tmp_path: Path) -> None:
    target = FromFile(npy(tmp_path, [-15.0, -5.0, 1.0, 10.0]))
    assert target.exact
    x = torch.linspace(-20, 20, 41, dtype=torch.float64)[:, None]
    for what in ("denoise", "log_density", "score", "posterior_variance"):
        arguments = x, number(0.9), number(2.0)
        assert torch.equal(getattr(target, what)(*arguments), getattr(FourPoints(), what)(*arguments))


def test_the_empirical_denoiser_is_the_softmax_over_the_points_and_independent_of_the_batch(tmp_path: Path) -> None:
    points = np.random.default_rng(1).normal(size=(1500, 3))
    target = FromFile(npy(tmp_path, points))
    x = torch.randn(300, 3, generator=stream("softmax"), dtype=torch.float64)
    alpha, sigma = number(0.8), number(0.3)
    D = target.denoise(x, alpha, sigma)
    share = torch.softmax(-torch.cdist(x, alpha * target.points).square() / (2 * sigma**2), dim=1)
    torch.testing.assert_close(D, share @ target.points, rtol=1e-10, atol=1e-10)
    for rows in ([0], [299], list(range(100, 107)), list(range(299, -1, -1))):
        assert torch.equal(target.denoise(x[rows], alpha, sigma), D[rows])


def test_the_exact_answer_is_offered_up_to_five_thousand_points(tmp_path: Path) -> None:
    line = np.arange(5001.0)
    assert FromFile(npy(tmp_path, line[:5000])).exact
    assert not FromFile(npy(tmp_path, line)).exact


# --- content is identity --------------------------------------------------------------------------


def test_a_spec_holds_the_digest_and_rebuilds_the_target(tmp_path: Path) -> None:
    path = npy(tmp_path)
    target = build(datasets, {"name": "from_file", "path": path})
    assert isinstance(target, FromFile)
    spec = target.spec()
    assert spec == {"name": "from_file", "path": path, "array": None, "digest": target.digest}
    again = build(datasets, json.loads(json.dumps(spec)))
    assert again == target
    assert hash(again) == hash(target)


def test_a_changed_file_is_another_target_and_no_longer_the_one_of_the_spec(tmp_path: Path) -> None:
    path = npy(tmp_path)
    before = FromFile(path)
    npy(tmp_path, POINTS + np.eye(40, 2) * 1e-15)
    after = FromFile(path)
    assert after != before
    assert after.spec() != before.spec()
    assert after.label() != before.label()
    assert torch.equal(before.points, torch.from_numpy(POINTS))
    text = refusal(path, digest=before.digest)
    assert "has changed since" in text
    assert before.digest[:12] in text
    with pytest.raises(ValueError, match="has changed since"):
        build(datasets, before.spec())


def test_what_is_drawn_for_a_target_does_not_depend_on_where_its_file_lies(tmp_path: Path) -> None:
    """One id is one observation, one set of points of the likelihood, one least error."""
    np.savez(tmp_path / "many.npz", first=POINTS, second=POINTS[:5])
    here, there = FromFile(npy(tmp_path)), FromFile(str(tmp_path / "many.npz"), "first")
    assert here.identity() == there.identity()
    requested, nll, blur = NoisyObservation(0, example=1, std=0.1), NegativeLogLikelihood(batch=8), GaussianNoise(0.3)
    assert requested.observation(here) == requested.observation(there)
    assert nll.floor(here, EDM()) == nll.floor(there, EDM())
    assert blur.least_error(here) == blur.least_error(there) is not None


def test_shape_is_part_of_the_content(tmp_path: Path) -> None:
    wide, long = (
        FromFile(npy(tmp_path, POINTS.reshape(shape), f"{i}.npy")) for i, shape in enumerate([(20, 4), (80, 1)])
    )
    assert wide.digest != long.digest
    assert long.digest == FromFile(npy(tmp_path, POINTS.reshape(80))).digest


def test_a_target_travels_with_its_points(tmp_path: Path) -> None:
    target = FromFile(npy(tmp_path))
    D = target.denoise(torch.zeros(1, 2).double(), number(1.0), number(1.0))
    Path(target.path).unlink()
    there = pickle.loads(pickle.dumps(target))  # noqa: S301 - our own
    assert there == target
    assert hash(there) == hash(target)
    assert there.spec() == target.spec()
    assert torch.equal(there.sample(9, stream("travel")), target.sample(9, stream("travel")))
    assert torch.equal(there.denoise(torch.zeros(1, 2).double(), number(1.0), number(1.0)), D)


def test_a_mapped_file_may_change_under_a_target_that_has_read_it(tmp_path: Path) -> None:
    target = FromFile(npy(tmp_path))
    with Path(target.path).open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\0" * 8)
    assert torch.equal(target.points, torch.from_numpy(POINTS))


def test_the_label_is_short_and_tells_files_of_one_name_apart(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first, second = FromFile(npy(tmp_path)), FromFile(npy(tmp_path / "other", POINTS[::-1]))
    assert first.label() == f"points@{first.digest[:8]}"
    assert first.label() != second.label()
    np.savez(tmp_path / "set.npz", train=POINTS, test=POINTS[:9])
    assert FromFile(str(tmp_path / "set.npz"), "train").label() == f"set:train@{first.digest[:8]}"
    assert FromFile(npy(tmp_path, name="a\nb.npy")).label().startswith("a?b@")


def test_a_relative_path_is_one_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npy(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert FromFile("points.npy").spec()["path"] == "points.npy"


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array(["a", "b"]), "holds <U1, needed: real numbers"),
        (np.array([1j, 2.0]), "holds complex128"),
        (np.array([True, False]), "holds bool"),
        (np.array(["2020-01-01", "2020-01-02"], dtype="M8[D]"), "holds datetime64"),
        (np.zeros(2, dtype=[("x", "f8"), ("y", "f8")]), "needed: real numbers"),
        (np.array([1.0, np.nan, np.inf]), "2 numbers that are not finite"),
        (np.float64(3.0), "has shape []"),
        (np.zeros(1), "has shape [1]; needed: [n] or [n, dim] with n >= 2"),
        (np.zeros((1, 3)), "has shape [1, 3]"),
        (np.zeros((3, 0)), "has shape [3, 0]"),
        (np.zeros((2, 3, 4)), "has shape [2, 3, 4]"),
        (np.full((9, 2), 7.0), "standard deviation of 0.0"),
        (np.array([1e300, -1e300]), "standard deviation of inf"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_what_are_no_points_is_refused(tmp_path: Path, values: Any, expected: str, kind: str) -> None:
    path = str(tmp_path / f"wrong.{kind}")
    if kind == "npy":
        np.save(path, values, allow_pickle=True)
    else:
        np.savez(path, points=values)
    found = refusal(path)
    assert expected in found
    assert repr(path) in found


def test_zarr_arrays_that_are_no_points_are_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "nan.zarr", data=np.array([1.0, np.nan]))
    assert "1 numbers that are not finite" in refusal(str(tmp_path / "nan.zarr"))
    zarr.create_array(tmp_path / "flags.zarr", data=np.array([True, False]))
    assert "holds bool" in refusal(str(tmp_path / "flags.zarr"))
    zarr.create_array(tmp_path / "huge.zarr", shape=(10**12, 2), chunks=(10**6, 2), dtype="f8")
    assert "larger than 1 GB" in refusal(str(tmp_path / "huge.zarr"))


def test_what_is_missing_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    assert "cannot be read: No such file or directory" in refusal(str(tmp_path / "missing.npy"))
    (tmp_path / "table.csv").write_text("x,y\n1,2\n")
    assert "neither a .npy or .npz file nor a Zarr folder" in refusal(str(tmp_path / "table.csv"))
    (tmp_path / "empty.npy").touch()
    assert "neither" in refusal(str(tmp_path / "empty.npy"))
    (tmp_path / "folder").mkdir()
    assert "cannot be read" in refusal(str(tmp_path / "folder"))
    os.mkfifo(tmp_path / "pipe.npy")
    assert "is no file" in refusal(str(tmp_path / "pipe.npy"))
    assert "cannot be read" in refusal("a\0b")
    assert "cannot be read" in refusal("x" * 5000)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = Path(npy(tmp_path)).read_bytes()
    for size in (7, 30, 128, len(whole) - 1):
        (tmp_path / "cut.npy").write_bytes(whole[:size])
        assert "cannot be read" in refusal(str(tmp_path / "cut.npy"))
    np.savez_compressed(tmp_path / "points.npz", points=POINTS)
    archive = (tmp_path / "points.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(archive[:-40])
    assert "cannot be read" in refusal(str(tmp_path / "cut.npz"))
    (tmp_path / "changed.npz").write_bytes(archive[:200] + b"\xff" * 20 + archive[220:])
    assert "cannot be read" in refusal(str(tmp_path / "changed.npz"))


def test_no_pickle_is_ever_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    np.save(tmp_path / "trap.npy", np.array([Trap(), Trap()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "trap.npz", points=np.array([Trap(), Trap()], dtype=object))
    (tmp_path / "trap.pkl").write_bytes(pickle.dumps(Trap()))
    for name, expected in (("trap.npy", "Python objects"), ("trap.npz", "Object arrays"), ("trap.pkl", "neither")):
        assert expected in refusal(str(tmp_path / name))
    assert not (tmp_path / "sprung").exists()


def test_what_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    np.lib.format.open_memmap(tmp_path / "large.npy", mode="w+", dtype="f4", shape=(130_000_000,))  # a file with a hole
    assert "larger than 1 GB as float64" in refusal(str(tmp_path / "large.npy"))
    header = {"descr": "<f8", "fortran_order": False, "shape": (260_000_000,)}
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("points.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(260):
            member.write(bytes(8_000_000))
    assert "larger than 1 GB" in refusal(str(tmp_path / "bomb.npz"))


def test_the_array_that_is_meant_must_be_clear(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", train=POINTS, test=POINTS[:9])
    group = zarr.open_group(tmp_path / "set.zarr", mode="w")
    group.create_array("train", data=POINTS)
    group.create_array("test", data=POINTS[:9])
    for path in map(str, (tmp_path / "set.npz", tmp_path / "set.zarr")):
        assert "holds 2 arrays ('test', 'train'); say which with array: NAME" in refusal(path)
        assert "holds no array 'dev' (there are: 'test', 'train')" in refusal(path, array="dev")
    zarr.open_group(tmp_path / "nothing.zarr", mode="w")
    assert "holds 0 arrays (none)" in refusal(str(tmp_path / "nothing.zarr"))
    zarr.create_array(tmp_path / "array.zarr", data=POINTS)
    for path in (npy(tmp_path), str(tmp_path / "array.zarr")):
        assert "is a single array" in refusal(path, array="train")


def test_a_study_that_names_no_path_is_told_so() -> None:
    with pytest.raises(ValidationError, match="path"):
        build(datasets, "from_file")
