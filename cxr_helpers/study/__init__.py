"""The study: profiles, plans that become rows, rows that become tables."""

from .glance import FAMILY, at_a_glance
from .plan import FineTune, Probe, Row, few_labels, finetune, missing, pick, probes, run_all, sweep
from .profiles import PROFILES, Profile, get_profile, load_data, project_root, runtime_for
from .records import gather
from .tables import Comparison, compare, family, histories, mean_interval, paired, policy_scores, stacked, summarise

__all__ = [
    "FAMILY",
    "PROFILES",
    "Comparison",
    "FineTune",
    "Probe",
    "Profile",
    "Row",
    "at_a_glance",
    "compare",
    "family",
    "few_labels",
    "finetune",
    "gather",
    "get_profile",
    "histories",
    "load_data",
    "mean_interval",
    "missing",
    "paired",
    "pick",
    "policy_scores",
    "probes",
    "project_root",
    "run_all",
    "runtime_for",
    "stacked",
    "summarise",
    "sweep",
]
