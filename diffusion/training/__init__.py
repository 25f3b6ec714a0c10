"""Training: one loop for a whole stack of models, and how noisy its gradients are."""

from __future__ import annotations

from diffusion.training.loop import LOSS_BINS, Member, TrainedStack, Training, train

__all__ = ["LOSS_BINS", "Member", "TrainedStack", "Training", "train"]
