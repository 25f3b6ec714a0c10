r"""The Fokker-Planck equation on the line: how the law of a forward process moves, without a single
sample.

For ``dx = f(x, t) dt + g(t) dw`` the density q obeys

    dq/dt = -d/dx [f q - g^2/2 dq/dx]                                            (Fokker-Planck equation)
          = -d/dx [v q],   v = f - g^2/2 d log q/dx                              (continuity equation of the flow)

**Solving it.** `evolve` keeps the probability of each cell of an even grid. The current between two
cells is that of a constant drift between them (Scharfetter & Gummel, "Large-signal analysis of a
silicon Read diode oscillator", IEEE Trans. Electron Devices 16, 1969; in this use Chang & Cooper,
J. Comput. Phys. 6, 1970): with D = g^2/2, cell width h and ``B(z) = z / (e^z - 1)``

    J = D/h^2 [B(-f h/D) m_i - B(f h/D) m_(i+1)]

upwind where g = 0, and none through the ends. The masses m then obey ``dm/dt = A m`` with the
generator A of a jump process between neighbouring cells. Its exponential is a mixture of powers of
a stochastic matrix with Poisson weights (uniformisation: Jensen, Skand. Aktuarietidskr. 36, 1953),
sums of positive terms only: no mass becomes negative, and none is lost, whatever the step. For an A
that changes in time a step is a product of two such exponentials (commutator-free Magnus: Blanes &
Moan, Appl. Numer. Math. 56, 2006), of fourth order, and steps are chosen to a tolerance. Second
order in h.

**The processes of the atlas** are one process: ``y = (x - alpha m) / c`` with
``c^2 = alpha^2 s^2 + sigma^2``, for data of mean m and standard deviation s, obeys on every
schedule

    dy = -y/2 dtau + dw_tau,      tau = log(s^2 + (sigma/alpha)^2)

so that `time_marginals` needs one constant A, has no error of time steps, and reaches levels
without any signal.

**Asking whether a field obeys it.** `fokker_planck_residual`, `continuity_residual` and
`score_residual` give what is left of the equations for any density, velocity or score, exact or
learned, by differences of eighth order.
"""

from __future__ import annotations

from diffusion.analysis.fokker_planck.fields import (
    Amplitude,
    Field,
    density_of,
    diffusion_of,
    drift_of,
    flow_of,
    score_of,
)
from diffusion.analysis.fokker_planck.residuals import continuity_residual, fokker_planck_residual, score_residual
from diffusion.analysis.fokker_planck.solving import Marginals, evolve, masses_of, time_marginals

__all__ = [
    "Amplitude",
    "Field",
    "Marginals",
    "continuity_residual",
    "density_of",
    "diffusion_of",
    "drift_of",
    "evolve",
    "flow_of",
    "fokker_planck_residual",
    "masses_of",
    "score_of",
    "score_residual",
    "time_marginals",
]
