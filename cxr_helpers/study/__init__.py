"""The study: profiles, plans that become rows, rows that become tables, and what stands behind a figure."""

from .controls import challenge
from .decisions import calibration, label_scores, operating
from .frozen import gather, label_curves, label_summary
from .plan import FAMILY, FineTune, Probe, Row, few_labels, finetune, missing, pick, probes, run_all, sweep
from .profiles import PROFILES, Profile, get_profile, load_data, project_root, runtime_for
from .scores import stacked
from .tables import Comparison, compare, family, histories, mean_interval, paired, policy_scores, summarise

__all__ = [
    "FAMILY", "PROFILES", "Comparison", "FineTune", "Probe", "Profile", "Row", "calibration",
    "challenge", "compare", "family", "few_labels", "finetune", "gather", "get_profile", "histories", "label_curves",
    "label_scores", "label_summary", "load_data", "mean_interval", "missing", "operating", "paired", "pick",
    "policy_scores", "probes", "project_root", "run_all", "runtime_for", "stacked", "summarise", "sweep",
]  # fmt: skip
