"""The trials of `python -m tests.faults`: a few of each kind succeed, and a planted fault fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults import __main__ as faults
from tests.faults import trials
from tests.faults.trials import Site

from reslearn.runs import RunFolder

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    return Site.build(tmp_path_factory.mktemp("faults"), seed=1)


@pytest.mark.slow
def test_no_fault_changes_an_outcome(site: Site) -> None:
    for trial, tries in (
        (trials.killed_at_random, 3),
        (trials.killed_before_event, 5),
        (trials.flipped_unfinished, 12),
        (trials.flipped_finished, 12),
        (trials.replaced, 2),
        (trials.resumed_twice, 2),
    ):
        count = faults.count_trials(site, trial.__name__, tries, trial)
        assert count.failures == [] and count.tries == tries
    assert site.num_kills >= 8


@pytest.mark.slow
def test_checkpoints_without_digests_fail(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunFolder, "read_checkpoint", lambda folder, path: path.read_bytes())
    monkeypatch.setattr(trials, "files_of", lambda run: RunFolder(run).checkpoints()[-1:])
    assert faults.count_trials(site, "planted", 10, trials.flipped_unfinished).failures


def test_the_table_names_each_failure(tmp_path: Path) -> None:
    counts = [faults.Count("disk full", 3, 1, ["trial 2: AssertionError: another weights"])]
    table = faults.markdown(counts, 0)
    assert "| disk full | 3 | 1 | 1 |" in table
    assert table.endswith("- disk full: trial 2: AssertionError: another weights\n")
    faults.write(tmp_path, counts, 0, table)
    assert (tmp_path / "faults.md").read_text() == table
