"""Training: one loop for a whole stack of models, and how noisy its gradients are.

- `loop`: Adam over all members together; `stack`: what it leaves;
- `gradient_variance`: how much the gradient of a minibatch varies.

What is trained (`Member`) and how (`Training`) are the objectives' own: `diffusion.objectives`.
"""

from __future__ import annotations

from diffusion.objectives.member import Member
from diffusion.objectives.settings import Training
from diffusion.training.loop import LOSS_BINS, train
from diffusion.training.stack import TrainedStack

__all__ = ["LOSS_BINS", "Member", "TrainedStack", "Training", "train"]
