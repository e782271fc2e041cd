"""The study: profiles, plans that become rows, rows that become tables, and what stands behind a figure."""

from .controls import challenge
from .decisions import calibration, class_scores, confusion, label_scores, operating
from .detection import (
    CONSTANT,
    READER,
    ap_table,
    compare_ap,
    finding_table,
    found_by,
    found_of,
    groups_of,
    readers_of,
    score_in_words,
)
from .frozen import gather, label_curves, label_summary
from .localise import box_masks, floors, grad_cam, localisation, middle_share
from .painting import painted
from .plan import FAMILY, FineTune, Probe, Row, few_labels, finetune, missing, pick, probes, run_all, sweep
from .profiles import PROFILES, Profile, get_profile, load_data, project_root, runtime_for
from .rivals import inpainting_rivals, patch_rivals, rival_accuracies
from .scores import stacked
from .tables import Comparison, compare, family, histories, mean_interval, paired, policy_scores, summarise
