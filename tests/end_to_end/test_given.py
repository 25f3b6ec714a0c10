"""Networks that somebody has already through the real command: a U-Net of another library with its
weights in a file, and a plain function of x and sigma.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tasks.results import open_results, open_samples

if TYPE_CHECKING:
    from pathlib import Path

    from tests.end_to_end.conftest import Command

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("services"),
    # numpy 2 and the peer disagree about __array__; nothing of ours is concerned
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

# `ByTimestep` leaves the arithmetic to us, `BySigma` does it with the table of diffusers' scheduler.
NETWORKS = """
import torch
from diffusers import DDPMScheduler, UNet2DModel

class ByTimestep(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.unet = UNet2DModel(
            sample_size=4, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 8),
            norm_num_groups=4, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        )

    def forward(self, x, t):
        return self.unet(x.view(-1, 1, 4, 4), t).sample.flatten(1)

class BySigma(ByTimestep):
    def __init__(self):
        super().__init__()
        kept = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear").alphas_cumprod.double()
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, x, sigma):
        own = ((1 - self.kept) / self.kept).sqrt()
        t = (own.log() - sigma[0].log()).abs().argmin()
        return x - own[t].to(x.dtype) * super().forward(self.kept[t].sqrt().to(x.dtype) * x, t.expand(len(x)))

class Flat(ByTimestep):
    def forward(self, x, t):
        return super().forward(x, t).sum(1)

def plain():
    return lambda x, sigma: (0.25 * x + 0.5 * sigma[:, None] ** 2) / (0.25 + sigma[:, None] ** 2)
"""
UNET: dict[str, Any] = {
    "name": "given",
    "module": "networks:ByTimestep",
    "predicts": "epsilon",
    "schedule": {"name": "ddpm-linear", "levels": 1000},
    "takes": "timestep",
    "weights": "unet.safetensors",
}
BY_SIGMA: dict[str, Any] = {**UNET, "module": "networks:BySigma", "predicts": "x0", "takes": "sigma"}
PLAIN = {"name": "given", "module": "networks:plain", "predicts": "x0", "schedule": "edm", "takes": "sigma"}
PICTURES: dict[str, Any] = {"name": "images", "path": "pictures.npy"}
NORMAL = {"name": "gaussian", "means": 0.5, "stds": 0.5, "dim": 2}


def study_of(*blocks: dict[str, Any]) -> str:
    return json.dumps(
        {
            "name": "networks",
            "datasets": [PICTURES],
            "formulations": [UNET],
            "samplers": ["heun", "ancestral"],
            "steps": [2, 5],
            "samples": 40,
            "metrics": ["energy"],
            "keep": {"samples": True},
            "grids": list(blocks) or [{}],
        }
    )


@pytest.fixture
def folder(diffatlas: Command) -> Path:
    """The modules, pictures of 4 x 4 and the weights of the network in it."""
    from diffusers import UNet2DModel

    here = diffatlas.folder
    (here / "networks.py").write_text(NETWORKS)
    np.save(here / PICTURES["path"], np.random.default_rng(0).normal(size=(50, 4, 4)))
    torch.manual_seed(5)
    unet = UNet2DModel(
        sample_size=4,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )
    save_file({f"unet.{name}": value for name, value in unet.state_dict().items()}, here / UNET["weights"])
    return here


def test_a_unet_with_its_weights_and_a_plain_function_are_swept(diffatlas: Command, folder: Path) -> None:
    """The U-Net gives what it gives to who does the arithmetic himself; the plain function, which is
    the ideal denoiser, gives the exact row's numbers.
    """
    blocks = {"formulations": [UNET, BY_SIGMA]}, {"datasets": [NORMAL], "formulations": [PLAIN]}
    (folder / "networks.yaml").write_text(study_of(*blocks))
    diffatlas("run", "networks.yaml")
    points = open_results(str(folder / "results"), study="networks")
    assert set(points["status"].values.tolist()) == {"ok"}
    frame = points.to_dataframe().reset_index().assign(factory=lambda rows: rows.formulation.str.extract(r":(\w+)@")[0])
    of = {name: rows.set_index(["sampler", "steps"]) for name, rows in frame.groupby("factory")}
    assert {name: len(rows) for name, rows in of.items()} == {"ByTimestep": 4, "BySigma": 4, "plain": 4}
    for ids in zip(of["ByTimestep"]["point_id"], of["BySigma"].loc[of["ByTimestep"].index, "point_id"], strict=True):
        mine, theirs = (open_samples(str(folder / "results"), one).values for one in ids)
        assert mine.std() > 0.1
        np.testing.assert_allclose(mine, theirs, atol=1e-3 * np.abs(theirs).max())
    exact = frame[(frame.formulation == "exact") & frame.dataset.str.startswith("gaussian")]
    exact = exact[exact.schedule == "edm"].set_index(["sampler", "steps"])
    assert exact.loc[of["plain"].index, "energy"].tolist() == pytest.approx(of["plain"]["energy"].tolist(), abs=1e-9)

    (cell,) = set(of["ByTimestep"]["cell_id"])
    program = "import sys, diffatlas as da\ntry:\n    da.open_model('results', sys.argv[1])\nexcept da.DiffatlasError as e:\n    print(e)"
    (folder / UNET["weights"]).rename(folder / "moved.safetensors")
    said, _ = diffatlas.python(program, str(cell), DIFFATLAS_ALLOW_PLUGINS="networks")
    assert "so what needs one cannot be made from a store" in said
    assert said.count("\n") == 1


def test_what_is_wrong_with_a_network_ends_the_command_with_2_and_the_sentence_that_helps(
    diffatlas: Command, folder: Path
) -> None:
    save_file({"unet.other": torch.ones(2)}, folder / "other.safetensors")
    wrong = {
        "expected 'x0', 'epsilon', 'score', 'v' or 'flow-velocity'": {"predicts": "noise"},
        "there is no file 'lost.safetensors'": {"weights": "lost.safetensors"},
        "'other.safetensors' are not those of 'networks:ByTimestep': it lacks ": {"weights": "other.safetensors"},
        "it has 1 that the network has not (unet.other)": {"weights": "other.safetensors"},
        "'networks' has no 'Unet'; it has: ": {"module": "networks:Unet"},
    }
    refuse(diffatlas, wrong)
    flat = "the network returned a tensor of float32 of shape [2] for x of shape [2, 16]"
    refuse(diffatlas, {flat: {"module": "networks:Flat"}})
    other = {"datasets": [NORMAL], "formulations": [{**PLAIN, "predicts": "epsilon"}]}
    (folder / "networks.yaml").write_text(study_of(other))
    said = " ".join(diffatlas("run", "networks.yaml", code=2).stderr.split())
    assert "'networks:plain' does not predict 'epsilon': read so, " in said
    assert "(write predicts: x0)" in said
    assert not (folder / "results").exists()


def refuse(diffatlas: Command, wrong: dict[str, dict[str, str]]) -> None:
    """Of a study that is wrong in several places the command tells each, shortly."""
    blocks = [{"formulations": [{**UNET, **change}]} for change in wrong.values()]
    (diffatlas.folder / "networks.yaml").write_text(study_of(*blocks))
    said = " ".join(diffatlas("run", "networks.yaml", code=2).stderr.split())
    for sentence in wrong:
        assert sentence in said
    assert len(said) < 500 * len(wrong)
