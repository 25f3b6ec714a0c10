"""What else a score is good for.

- `elbo`, over `gaussians`: the evidence lower bound; `likelihood`: exact likelihoods by the probability flow;
- `flow_limit`: the flow without discretisation error; `fokker_planck`: densities along the way to noise;
- `score_matching`: traces of Jacobians and the divergence between scores.
"""
