"""What the report asks of a store: nothing else is read.

The report never sees files, snapshots or Zarr; anything with these attributes can be drawn, a hand-made object too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr
    from torch import Tensor

    from tasks.plan import Cell


class ReportedModel(Protocol):
    """A stored denoiser, exact or trained."""

    @property
    def cell(self) -> Cell:
        """What it was made for."""
        ...

    def denoise(self, x: Tensor, sigma: Tensor | float, *, alpha: Tensor | float = 1.0) -> Tensor:
        """``E[x_0 | alpha x_0 + sigma eps = x]``, x ``[n, dim]``."""
        ...


class ReportSource(Protocol):
    """The answers of one study at one snapshot, read-only."""

    @property
    def points(self) -> xr.Dataset:
        """One row per question, dimension ``point``.

        Coordinates `dataset`, `formulation`, `schedule`, `sampler`, `grid`, `steps`, `nfe`, `seed`, `cell_id`,
        `point_id`, `status` (``ok``, ``failed`` or ``skipped``) and `error` (empty if there was none); variables: one
        per metric, ``<metric>_floor`` for each (what a perfect sampler would score with as many samples), where there is
        an exact row to compare with also the other parts and the limit of `tasks.results.error_decomposition`, `train_seconds`,
        `sample_seconds`.
        ``formulation == "exact"`` is the ideal denoiser: no network, same sampler, same schedule.
        """
        ...

    @property
    def study(self) -> Mapping[str, Any]:
        """The canonical specification, defaults written out."""
        ...

    @property
    def provenance(self) -> Mapping[str, str]:
        """Snapshot, time, versions, device: whatever a reader needs to find the same numbers again."""
        ...

    def samples(self, point_id: str) -> xr.DataArray | None:
        """Kept samples ``(sample, coordinate)``, or None; cheap where nothing was kept."""
        ...

    def trajectory(self, point_id: str) -> xr.DataArray | None:
        """Kept reverse trajectory ``(level, sample, coordinate)``, level 0 = noise, or None.

        Coordinates `time`, `alpha` and `sigma` along ``level``.
        """
        ...

    def losses(self) -> xr.DataArray:
        """Mean training loss ``(cell, progress)``.

        Coordinates `cell_id`, `dataset`, `formulation`, `schedule` and `seed` along ``cell``, `step` along
        ``progress``.
        """
        ...

    def score_errors(self) -> xr.DataArray:
        """Error of the learned score by noise level ``(cell, level)``; of size 0 where it was not asked for.

        Coordinates `cell_id`, `dataset`, `formulation`, `schedule` and `seed` along ``cell``, `nsr` (noise-to-signal ratio)
        along ``(cell, level)``.
        """
        ...

    def model(self, cell_id: str) -> ReportedModel | None:
        """The denoiser of a cell; None where it is not stored, gives none, or is not made by the present code."""
        ...
