"""The mathematics of diffusion models: torch, numpy and scipy; no files, no processes, no printing."""
