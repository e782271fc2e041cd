"""What a page says of itself holds for all of it: its profile, its data, and runs that are what their names say.

Every table checks its runs against the head of the page that is being made; what joins runs without naming their data
(a sentence, a curve, a pair) takes one data set at one size with one content; a run's record must be the one that its
folder's name is the hash of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from ..recipes import run_id
from ..runs import Run

__all__ = ["PAGE", "Claim", "content_of", "one_data_set", "require_own_record"]


@dataclass(kw_only=True)
class Claim:
    """What the page that is being made says of itself. A page is one process, so there is one claim: `PAGE`.

    Before a head is displayed (scripts, the README) nothing is claimed and nothing refused.
    """

    profile: str | None = None
    data: dict[tuple[str, int], str] = field(default_factory=dict)  # (name, px) -> fingerprint

    def make(self, profile: str, data: Mapping[tuple[str, int], str]) -> None:
        """Take a head's claim for the page's; a head displayed again replaces it."""
        self.profile, self.data = profile, dict(data)

    def require_profile(self, profile: str) -> None:
        """Refuse to write for another profile than the page's.

        Raises:
            ValueError: it is another one.
        """
        if self.profile not in (None, profile):
            raise ValueError(
                f"profile must be {self.profile}, which the page's head names, got {profile}: "
                "make its page from its own"
            )

    def require_data(self, run: Run) -> None:
        """Refuse a run on other data than the page's.

        Raises:
            ValueError: its data set, size or content is none that the head names.
        """
        name, size, content = run.record["dataset"], run.record["size"], run.record["fingerprint"]
        if self.profile is None or self.data.get((name, size)) == content:
            return
        shown = "; ".join(f"{n} {px} px with content {digest[:10]}" for (n, px), digest in self.data.items())
        raise ValueError(
            f"runs of this page must be on the data its head names ({shown or 'none'}), got {run.id} on {name} "
            f"{size} px with content {content[:10]}: load the page's own runs"
        )


PAGE = Claim()


def content_of(fingerprint: str) -> str:
    """How a page and a table name the content of a data set: ten digits of its fingerprint."""
    return fingerprint[:10]


def require_own_record(run: Run) -> None:
    """Refuse a run folder whose record is not the one that its name is the hash of.

    Raises:
        ValueError: it was renamed, copied or edited.
    """
    record = run.record
    try:
        name = run_id(record)
    except KeyError as error:
        raise ValueError(f"run folder {run.path} must hold a whole record, got none of {error}: move it away") from None
    if name != run.id:
        raise ValueError(f"run folder {run.id} must hold the record of that name, got that of {name}: move it away")


def one_data_set(table: pd.DataFrame) -> pd.DataFrame:
    """The table, if its rows are of one data set at one size with one content.

    Raises:
        ValueError: they are of several.
    """
    kinds = [column for column in ("dataset", "size", "content") if column in table]
    several = table[kinds].drop_duplicates() if len(table) and kinds else table
    if len(table) and len(several) > 1:
        shown = "; ".join(" ".join(map(str, row)) for row in several.itertuples(index=False))
        raise ValueError(f"runs must be of one data set at one size with one content, got {shown}: filter the runs")
    return table
