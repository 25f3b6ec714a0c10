"""What else a score is good for.

- `elbo`, over `gaussians`: the evidence lower bound; `likelihood`: exact likelihoods by the
  probability flow;
- `flow_limit`: the flow without discretisation error; `fokker_planck`: densities along the way to
  noise;
- `score_matching`: traces of Jacobians and the divergence between scores.
"""

from __future__ import annotations

from diffusion.analysis import elbo, flow_limit, fokker_planck, gaussians, likelihood, score_matching

__all__ = ["elbo", "flow_limit", "fokker_planck", "gaussians", "likelihood", "score_matching"]
