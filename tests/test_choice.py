"""The choice of augmentations: planted scores give the choice, the interval and the sentences one computes by hand."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import texture_dataset
from studies import make_run

from cxr_helpers import RuntimeConfig, plans, pretrain
from cxr_helpers.profiles import get_profile
from cxr_helpers.report import choice, prose_study, save_table
from cxr_helpers.report.claims import content_of


def scores_of(table: dict[str, list[float]], dataset: str = "pneumoniamnist") -> pd.DataFrame:
    """Rows of `policy_scores` with the given online figures by seed."""
    rows = [
        {"dataset": dataset, "data": "PneumoniaMNIST", "size": 64, "policy": policy, "seed": seed, "epochs": 5}
        | {"content": "0123456789", "commit": f"commit{seed}"}
        | {"metric": "auc", "online": value, "knn": value - 0.1, "linear": 1 - value}
        for policy, values in table.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


CLEAR = {"ref": [0.90, 0.91, 0.92], "ssl": [0.93, 0.94, 0.95], "soft": [0.96, 0.971, 0.98]}
NOISY = {"ref": [0.90, 0.97, 0.92], "ssl": [0.93, 0.94, 0.95], "soft": [0.99, 0.90, 0.97]}


def test_a_clear_winner_replaces_the_default_and_a_noisy_one_does_not() -> None:
    clear = choice.choose_policy(scores_of(CLEAR), "ssl", CLEAR)
    assert clear is not None and clear.policy == clear.best == "soft" and clear.decided
    assert clear.difference == pytest.approx(np.mean([0.03, 0.031, 0.03])) and clear.low > 0
    noisy = choice.choose_policy(scores_of(NOISY), "ssl", NOISY)
    assert noisy is not None and noisy.best == "soft" and noisy.policy == "ssl" and not noisy.decided
    assert noisy.low < 0 < noisy.difference < noisy.high
    assert noisy.winners == ("soft", "ref", "soft")


def test_the_default_that_wins_is_simply_kept() -> None:
    found = choice.choose_policy(scores_of(CLEAR), "soft", CLEAR)
    assert found is not None and found.policy == found.best == "soft" and found.decided and found.difference == 0


def test_nothing_is_chosen_while_a_policy_or_a_common_seed_is_missing() -> None:
    assert choice.choose_policy(scores_of(CLEAR), "ssl", [*CLEAR, "student"]) is None
    assert choice.choose_policy(pd.DataFrame(), "ssl", CLEAR) is None
    apart = scores_of(CLEAR)
    apart = apart[(apart.policy != "ref") | (apart.seed == 7)]
    assert choice.choose_policy(apart, "ssl", CLEAR) is None


def test_a_seed_that_the_default_lacks_does_not_count() -> None:
    more = pd.concat([scores_of(CLEAR), scores_of({"ref": [0, 0, 0, 1.0]}).tail(1)])
    found = choice.choose_policy(more, "ssl", CLEAR)
    assert found is not None and found.seeds == (0, 1, 2) and found.best == "soft" and len(found.winners) == 3


def test_a_search_of_which_runs_are_missing_pairs_the_seeds_it_has() -> None:
    part = scores_of(CLEAR | {"ref": CLEAR["ref"][:1], "student": [0.94]})  # soft and ssl have three seeds, others one
    found = choice.choose_policy(part, "ssl", [*CLEAR, "student"])
    assert found is not None and found.policy == found.best == "soft" and found.seeds == (0, 1, 2)
    assert found.winners == ("soft",) and np.isnan(found.share)
    summary = choice.policy_summary(part, "ssl").set_index("policy")
    assert list(summary.index) == ["soft", "student", "ssl", "ref"]
    assert [len(seeds) for seeds in summary.seeds] == [3, 1, 3, 1] and summary.share.isna().all()
    assert summary.above_default["student"] == pytest.approx(0.01) and np.isinf(summary.high["student"])
    text = prose_study.choice_text(found, summary.reset_index())
    assert "**soft** replaces ssl" in text and "paired over 3 seeds" in text and "comes out on top" not in text
    assert "an order that may be chance: student, ref" in text
    assert "By the offline linear probe the best is ref" in text  # where the choice is less sure than its interval
    reading = prose_study.reading_of_policies(summary.reset_index())
    assert "the seeds of each" in reading and "lucky seed" in reading
    assert "Above ssl by an interval that excludes 0: soft +3.0 points" in reading


def test_the_paired_interval_is_students_and_unbounded_for_one_pair() -> None:
    mean, low, high = choice.paired_interval(np.array([1.0, 2.0, 3.0]))
    half = 4.302653 / np.sqrt(3)  # t quantile .975 with 2 degrees of freedom, sd 1
    assert (mean, low, high) == pytest.approx((2.0, 2 - half, 2 + half), rel=1e-6)
    assert choice.paired_interval(np.array([0.5])) == (0.5, -np.inf, np.inf)


def test_win_shares_enumerate_the_draws_of_seeds() -> None:
    table = pd.DataFrame({"a": [1.0, 0.0], "b": [0.4, 0.4]})  # draws: 00 a, 01 and 10 a (.5 > .4), 11 b
    assert choice.win_shares(table).to_dict() == {"a": 0.75, "b": 0.25}
    many = pd.DataFrame({"a": np.ones(8), "b": np.zeros(8)})
    assert choice.win_shares(many)["a"] == 1.0


def test_a_policy_summary_is_best_first_with_differences_to_the_default() -> None:
    summary = choice.policy_summary(scores_of(CLEAR), "ssl")
    assert list(summary.policy) == ["soft", "ssl", "ref"] and summary.above_default.iloc[1] == 0
    assert summary.above_default.iloc[0] == pytest.approx(np.mean([0.03, 0.031, 0.03]))
    assert summary.share.sum() == pytest.approx(1)
    shown = choice.shown_policies(summary)
    assert "| soft | 3 | 0.970 ± 0.010 | +3.0 | [+2.9, +3.2] | 100 % |" in shown
    assert "| ssl | 3 | 0.940 ± 0.010 | – | – | 0 % |" in shown and "| ref | 3 | 0.910 ± 0.010 | −3.0 | [" in shown
    one = choice.shown_policies(choice.policy_summary(scores_of({k: v[:1] for k, v in CLEAR.items()}), "ssl"))
    assert "| soft | 1 | 0.960 | +3.0 | – | – |" in one and "inf" not in one and "nan" not in one
    assert choice.policy_summary(scores_of(CLEAR), "student").empty  # nothing to be held against
    assert choice.policy_summary(pd.DataFrame(), "ssl").empty


def test_orders_on_two_data_sets_are_compared_by_rank() -> None:
    first = scores_of(CLEAR)
    turned = scores_of({name: [1 - v for v in values] for name, values in CLEAR.items()}, "chestmnist")
    assert choice.agreement(first, first)["spearman"] == pytest.approx(1)
    assert choice.agreement(first, turned)["spearman"] == pytest.approx(-1)
    two = choice.agreement(first[first.policy != "ref"], first)
    assert two["policies"] == 2 and np.isnan(two["spearman"])


def test_scores_come_from_the_last_epochs_and_the_offline_probe(tmp_path: Path) -> None:
    run = make_run(tmp_path, policy="soft", seed=1)
    row = choice.policy_scores([run]).iloc[0]
    assert row.online == pytest.approx(run.history["online_auc"].tail(3).mean())
    assert row.knn == run.history["knn_auc"].iloc[-1] and row.linear == run.metrics["linear"]["val"]["auc"]
    curves = choice.policy_histories([run, make_run(tmp_path, policy="ref", seed=1)])
    assert set(curves.label) == {"soft", "ref"} and set(curves.family) == {"policy:soft", "policy:ref"}


def test_the_choice_is_read_back_for_its_own_profile_data_and_size_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_REPORT", str(tmp_path / "page"))
    monkeypatch.setattr(choice, "project_root", lambda: tmp_path / "checkout")
    data = dataclasses.replace(texture_dataset(), name="pneumoniamnist")
    profile, found = get_profile("quick"), choice.choose_policy(scores_of(CLEAR), "ssl", CLEAR)
    assert found is not None and choice.read_choice(profile, [data]) is None
    save_table(choice.choice_table(found, profile), "03_choice", profile)
    assert choice.read_choice(profile, [data]) is None  # found on other images under the same name
    found = dataclasses.replace(found, content=content_of(data.fingerprint))
    save_table(choice.choice_table(found, profile), "03_choice", profile)
    assert choice.read_choice(profile, [data]) == "soft"
    assert choice.read_choice(get_profile("cpu"), [data]) is None
    assert choice.read_choice(profile, [dataclasses.replace(data, name="chestmnist")]) is None
    published = tmp_path / "checkout/results/tables"
    published.mkdir(parents=True)
    (tmp_path / "page/tables/03_choice.csv").rename(published / "03_choice.csv")
    assert choice.read_choice(profile, [data]) == "soft"


def test_the_sentences_say_what_the_choice_holds() -> None:
    clear, noisy = (choice.choose_policy(scores_of(t), "ssl", t) for t in (CLEAR, NOISY))
    assert "**soft** replaces ssl" in prose_study.choice_text(clear)
    assert "+3.0 points" in prose_study.choice_text(clear)
    assert "**ssl**, argued for beforehand, is kept" in prose_study.choice_text(noisy)
    assert "No choice yet" in prose_study.choice_text(None) and prose_study.single_seed_text(None) == ""
    assert "soft with 2 of 3 seeds, ref with 1 of 3 seeds" in prose_study.single_seed_text(noisy)
    assert "depended on the seed" in prose_study.single_seed_text(noisy)
    assert "every seed would have said the same" in prose_study.single_seed_text(clear)
    one = choice.choose_policy(scores_of({k: v[:1] for k, v in CLEAR.items()}), "ssl", CLEAR)
    assert "must not be trusted" in prose_study.single_seed_text(one)
    assert one is not None and one.policy == "ssl" and "no interval" in prose_study.choice_text(one)


def test_the_reading_of_policies_names_order_doubt_and_disagreement() -> None:
    text = prose_study.reading_of_policies(choice.policy_summary(scores_of(CLEAR), "ssl"))
    assert "mean of 3 seeds" in text and "to ssl: **soft** 0.970, ssl 0.940, ref 0.910." in text
    assert "Above ssl by an interval that excludes 0: soft +3.0 points [+2.9, +3.2], 3 seeds." in text
    assert "Below ssl by an interval that excludes 0: ref −3.0 points" in text
    assert "lucky" not in text and "not told" not in text.lower()
    assert "By the offline linear probe the best is ref (0.090), not soft." in text and "By kNN" not in text
    noisy = prose_study.reading_of_policies(choice.policy_summary(scores_of(NOISY), "ssl"))
    assert "Not told from ssl: soft" in noisy and "; ref" in noisy and "excludes 0" not in noisy
    one = {k: v[:1] for k, v in CLEAR.items()}
    text = prose_study.reading_of_policies(choice.policy_summary(scores_of(one), "ssl"))
    assert "One seed, so no interval and an order that may be chance: soft, ref." in text
    assert "No seed" in prose_study.reading_of_policies(pd.DataFrame())


@pytest.mark.usefixtures("tiny_net")
def test_a_work_list_keeps_the_profiles_policy_until_a_run_with_the_chosen_one_is_finished(
    tmp_path: Path, runtime: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_REPORT", str(tmp_path / "page"))
    monkeypatch.setattr(choice, "project_root", lambda: tmp_path / "checkout")
    data = texture_dataset()
    profile = dataclasses.replace(
        get_profile("smoke"), train_missing=False, epochs=1, seeds=(0, 1), methods=("simclr",)
    )
    in_use = partial(choice.policy_in_use, profile, {data.name: data}, runtime)
    said = prose_study.reading_of_policy_in_use
    assert in_use() == choice.PolicyInUse(policy="ssl", chosen=None, why="profile")
    assert "as the profile names it; notebook 03 has written no choice" in said(in_use())
    assert (
        in_use(named="ref").policy == "ref" and said(in_use(named="ref")) == "Augmentations: **ref**, as named above."
    )

    found = choice.choose_policy(scores_of(CLEAR), "ssl", CLEAR)
    assert found is not None and found.policy == "soft"
    found = dataclasses.replace(found, dataset=data.name, size=data.size, content=content_of(data.fingerprint))
    save_table(choice.choice_table(found, profile), "03_choice", profile)
    assert in_use() == choice.PolicyInUse(policy="ssl", chosen="soft", why="no runs")
    assert "notebook 03 chose **soft**, with which no run of this length is finished" in said(in_use())
    assert "as named above; notebook 03 chose **soft**." in said(in_use(named="ref"))
    trains = choice.policy_in_use(dataclasses.replace(profile, train_missing=True), {data.name: data}, runtime)
    assert (trains.policy, trains.why) == ("soft", "chosen")  # such a page makes the runs itself

    (config,) = (c for c in plans.plan_runs(profile, {data.name: data}, policy="soft") if c.policy == "soft" and c.seed)
    pretrain(config, data, runtime)
    assert (in_use().policy, in_use().why) == ("soft", "chosen") and "as notebook 03 left it" in said(in_use())


@pytest.mark.parametrize(("rho", "word"), [(0.9, "agree:"), (0.5, "agree in part"), (-0.2, "do not agree")])
def test_agreement_in_words(rho: float, word: str) -> None:
    text = prose_study.reading_of_agreement({"policies": 6, "spearman": rho}, "A", "B")
    assert word in text and f"{rho:.2f}" in text
    assert "Too few" in prose_study.reading_of_agreement({"policies": 2, "spearman": float("nan")}, "A", "B")
