"""Tables, sentences and files made from finished runs."""

from .comparisons import method_pairs, paired_table
from .goals import GOALS, Goal, goal_pairs, goal_table, reading_of_goals, shown_goals
from .hyperparameters import hyperparameter_table
from .lineage import configuration, dataset_name, family_of, label_of, parent_of, run_label
from .live import LiveFigure
from .prose import (
    heading,
    missing_text,
    page_head,
    reading_of_collapse,
    reading_of_curves,
    reading_of_online,
    reading_of_probe_curve,
    reading_of_scores,
    verdict,
    verdicts,
)
from .prose_decisions import reading_of_calibration, reading_of_labels_one_by_one, reading_of_operating
from .prose_evidence import absent_text, reading_of_localisation, reading_of_maps, reading_of_retrieval
from .prose_rereading import reading_of_rereading, shown_rereading, shown_trials
from .prose_rivals import reading_of_controls, reading_of_correlations
from .published import PUBLISHED, Published, published_table
from .report import (
    page_commit,
    report_folder,
    save_answer,
    save_figure,
    save_table,
    shown_pairs,
    shown_runs,
    shown_summary,
    to_markdown,
)
from .slider import with_slider
from .tables import collect_runs, history_table, probe_curve_table, runs_table, summary_table
from .work import Done, LiveStatus, run_plan, shown_work, status_of, work_list

__all__ = [
    "GOALS",
    "PUBLISHED",
    "Done",
    "Goal",
    "LiveFigure",
    "LiveStatus",
    "Published",
    "absent_text",
    "collect_runs",
    "configuration",
    "dataset_name",
    "family_of",
    "goal_pairs",
    "goal_table",
    "heading",
    "history_table",
    "hyperparameter_table",
    "label_of",
    "method_pairs",
    "missing_text",
    "page_commit",
    "page_head",
    "paired_table",
    "parent_of",
    "probe_curve_table",
    "published_table",
    "reading_of_calibration",
    "reading_of_collapse",
    "reading_of_controls",
    "reading_of_correlations",
    "reading_of_curves",
    "reading_of_goals",
    "reading_of_labels_one_by_one",
    "reading_of_localisation",
    "reading_of_maps",
    "reading_of_online",
    "reading_of_operating",
    "reading_of_probe_curve",
    "reading_of_rereading",
    "reading_of_retrieval",
    "reading_of_scores",
    "report_folder",
    "run_label",
    "run_plan",
    "runs_table",
    "save_answer",
    "save_figure",
    "save_table",
    "shown_goals",
    "shown_pairs",
    "shown_rereading",
    "shown_runs",
    "shown_summary",
    "shown_trials",
    "shown_work",
    "status_of",
    "summary_table",
    "to_markdown",
    "verdict",
    "verdicts",
    "with_slider",
    "work_list",
]
