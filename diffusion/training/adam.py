"""Adam, without the class of torch's: making one imports its compiler, two seconds of every process
that trains.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam

from diffusion.devices import HOST


class Adam:
    """The steps of `torch.optim.Adam` for arrays that all have a gradient in every step.

    Source: Kingma & Ba, Adam, ICLR 2015.

    Args:
        parameters: what is changed in place.
        betas: memory of the mean and of the mean square of gradients.
        eps: is added to the root of the mean square.
    """

    def __init__(self, parameters: Sequence[Tensor], betas: tuple[float, float], eps: float = 1e-8) -> None:
        self._parameters, self._betas, self._eps = list(parameters), betas, eps
        self._fused = all(one.device.type != "meta" for one in parameters)  # which has shapes alone
        self._means = [torch.zeros_like(one) for one in parameters]
        self._squares = [torch.zeros_like(one) for one in parameters]
        # the plain rule reads the count, which only the fused one does where the parameters are
        places = [one.device if self._fused else HOST for one in parameters]
        self._steps = [torch.zeros((), dtype=torch.float32, device=place) for place in places]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for one in self._parameters:
            one.grad = None

    @property
    def state(self) -> list[Tensor]:
        """What a step changes besides the parameters."""
        return [*self._means, *self._squares, *self._steps]

    @torch.no_grad()
    def step(self, learning_rate: float | Tensor) -> None:
        """One step against the gradients; an array without one stays."""
        kept = [i for i, one in enumerate(self._parameters) if one.grad is not None]
        adam(
            [self._parameters[i] for i in kept],
            [self._parameters[i].grad for i in kept],  # type: ignore[misc]  # none is None
            [self._means[i] for i in kept],
            [self._squares[i] for i in kept],
            [],
            [self._steps[i] for i in kept],
            foreach=False,
            fused=self._fused,
            amsgrad=False,
            beta1=self._betas[0],
            beta2=self._betas[1],
            lr=learning_rate,
            weight_decay=0.0,
            eps=self._eps,
            maximize=False,
        )
