"""What somebody writes who has read the README alone."""

import torch

SCRIPT = """\
import torch
import diffatlas as da

data = torch.randn(4000, 2) * torch.tensor([1.0, 0.5]) + torch.tensor([0.0, 1.0])
mean, var = data.mean(0), data.var(0)
for sampler in ("euler", "heun", "dpmpp-2m", "ancestral"):
    x = da.sample(lambda x, sigma: mean + var / (var + sigma**2) * (x - mean), sampler, n=2000, dim=2, steps=40)
    scores[sampler] = da.evaluate(x, data, ["sliced-w2", "energy"])
model = da.train(data, "edm", steps=400, batch=256, width=32, depth=2)
y = model.sample("heun", steps=20, n=2000)
scores["trained"] = da.evaluate(y, data, ["sliced-w2", "energy"])
print(scores, da.loss_floor(data[:500]))
"""


def test_twelve_lines_sample_a_denoiser_of_ones_own_train_on_ones_own_tensor_and_score() -> None:
    torch.manual_seed(0)
    result: dict[str, object] = {"scores": {}}
    assert len(SCRIPT.splitlines()) == 12
    exec(SCRIPT, result)  # noqa: S102 - it is ours
    scores = result["scores"]
    assert isinstance(scores, dict)
    assert list(scores) == ["euler", "heun", "dpmpp-2m", "ancestral", "trained"]
    for name, found in scores.items():
        assert found["sliced-w2"].value < 3 * found["sliced-w2"].floor + (0.1 if name == "trained" else 0.06)
        assert found["energy"].floor > 0
