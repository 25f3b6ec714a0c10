"""A network and a training loop of one's own: samples, score and likelihood from the atlas.

Any `torch.nn.Module` f(x [n, dim], sigma) will do. This one predicts the noise in x = x_0 + sigma
eps and is trained by plain regression; the least loss that any network can reach is known.
"""

import torch

import diffatlas as da


class Net(torch.nn.Module):
    """The noise in x at noise level sigma, which is a number or one for each row."""

    def __init__(self, dim: int, width: int = 64) -> None:
        super().__init__()
        layers = [torch.nn.Linear(dim + 2, width), torch.nn.SiLU(), torch.nn.Linear(width, width), torch.nn.SiLU()]
        self.layers = torch.nn.Sequential(*layers, torch.nn.Linear(width, dim))

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        sigma = sigma.expand(len(x))[:, None]
        level = torch.atan(sigma)
        noise: torch.Tensor = self.layers(torch.cat([x / torch.sqrt(1 + sigma**2), level.cos(), level.sin()], 1))
        return noise


def fit(net: Net, data: torch.Tensor, steps: int) -> float:
    """Regression on the noise at log-uniform levels from 0.01 to 20; the mean loss of the last
    tenth.
    """
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses: list[float] = []
    for _ in range(steps):
        x = data[torch.randint(len(data), (512,))]
        sigma = torch.exp(torch.empty(512).uniform_(-4.6, 3.0))
        noise = torch.randn_like(x)
        loss = (net(x + sigma[:, None] * noise, sigma) - noise).square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return sum(losses[-steps // 10 :]) / len(losses[-steps // 10 :])


def main(steps: int = 1500) -> dict[str, da.Score]:
    torch.manual_seed(0)
    target = da.dataset("moons")
    data = target.sample(20_000, torch.Generator().manual_seed(0)).float()
    net = Net(2)
    print(f"loss {fit(net, data, steps):.3f}")
    schedule = da.schedule("edm", sigma_min=0.01, sigma_max=20.0)
    model = da.model(net, dim=2, schedule=schedule, predicts="epsilon")
    print("score at the origin, sigma = 0.5:", model.score(torch.zeros(1, 2), 0.5).tolist())
    return da.evaluate(model.sample("heun", steps=30, n=2000), target, ["energy", "sliced-w2"])


if __name__ == "__main__":
    for name, score in main().items():
        print(f"{name}: {score.value:.4f}, of perfect samples {score.floor:.4f}")
