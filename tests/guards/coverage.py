"""How often a 95 % interval of a difference holds the truth: `python -m tests.guards.coverage [--studies 1000]`.

Studies are drawn whose two encoders are equally good: 428 patients with one or two films, five in eight ill, AUC near
.95. Films differ for all encoders alike, a little for every run (.0028 of AUC), and every seed is better or worse by so
much that runs differ by .0026, .0030, .0037 or .0055 of AUC; in the records that is .002 to .003. Three more encoders
of three seeds tell how much seeds differ, as the other rows of the report do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_helpers.probe import SeedSpread, difference_of, resample, seed_spread

TABLE = Path(__file__).resolve().parents[2] / "results" / "tables" / "coverage.csv"
SEEDS = ((3, 3), (3, 1), (1, 1))
SKILLS = (0.0, 0.02, 0.04, 0.07)  # sd between seeds, in units of the films' spread


def study(seeds: tuple[int, int], skill: float, number: int) -> dict[str, float]:
    """Whether the intervals of one drawn study hold 0: over patients alone, and with what seeds add."""
    rng = np.random.default_rng([number, *seeds, round(1000 * skill)])
    patients = np.repeat(np.arange(428), rng.integers(1, 3, 428))
    ill = (rng.random(428) < 0.625)[patients].astype(int)
    film = 0.7 * rng.normal(size=428)[patients] + np.sqrt(0.51) * rng.normal(size=len(patients))

    def encoder(count: int) -> np.ndarray:
        means = (2.35 + skill * rng.normal(size=(count, 1))) * ill
        return means + np.sqrt(0.92) * film + np.sqrt(0.08) * rng.normal(size=means.shape)

    a, b, *others = (resample(ill, encoder(count), patients, num_resamples=2000) for count in (*seeds, 3, 3, 3))
    spread = seed_spread([a, b, *others])
    found = {name: difference_of(a, b, one) for name, one in (("patients alone", SeedSpread()), ("report", spread))}
    sd = float(np.mean([one.observed.std(ddof=1) for one in others]))
    return {name: float(one.low <= 0 <= one.high) for name, one in found.items()} | {"sd of seeds": sd}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000)
    count = parser.parse_args().studies
    lines = []
    for skill in SKILLS:
        for seeds in SEEDS:
            held = pd.DataFrame([study(seeds, skill, number) for number in range(count)]).mean()
            lines.append({"seeds": "{} : {}".format(*seeds), **held.round(4), "studies": count})
            print(lines[-1], flush=True)
    pd.DataFrame(lines).to_csv(TABLE, index=False)


if __name__ == "__main__":
    main()
