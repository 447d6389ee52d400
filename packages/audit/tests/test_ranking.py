"""What an audit makes of signals."""

from pathlib import Path

import numpy as np
import pytest

from reweight_audit.ranking import Judged, ranked
from reweight_audit.records import Signal

GIVEN = np.zeros(60, dtype=np.int64)
SUSPICIOUS = np.arange(60) < 20


def logits_of(*rows):
    """Of the suspicious examples, and of the others."""
    return np.where(SUSPICIOUS[:, None], rows[0], rows[1]).astype(np.float32)


@pytest.fixture
def audit_by():
    def audit_by(*logits):
        everything = np.ones(60)
        judged = Judged(
            ids=np.arange(60),
            names=[str(i) for i in range(60)],
            given=GIVEN,
            true=np.full(60, -1),
            planted=np.zeros(60, dtype=bool),
            weights=everything,
            logits=np.stack(logits),
        )
        values = np.where(SUSPICIOUS, 8.0, 0.0) + np.linspace(0, 1, 60)
        return ranked(Path("."), "", "abc", judged, [Signal("loss", "", values)], known={}, calibrated=None)

    return audit_by


def test_networks_suggest_together_what_is_likeliest_without_the_label(audit_by):
    by_heart = logits_of((50, 1, 0), (50, 0, 1))
    sure = logits_of((2, 0, 4), (5, 0, 0))
    found = audit_by(by_heart, sure)
    assert (found.probability >= 0.5).tolist() == SUSPICIOUS.tolist()
    # without the label: 0.73 and 0.02 for b, 0.27 and 0.98 for c
    assert found.suggested.tolist() == np.where(SUSPICIOUS, 2, 0).tolist()
    assert audit_by(by_heart).suggested.tolist() == np.where(SUSPICIOUS, 1, 0).tolist()


def test_the_last_network_says_whether_there_is_another_label(audit_by):
    by_heart, doubtful = logits_of((50, 1, 0), (50, 0, 1)), logits_of((2, 0, 4), (0, 2, 1))
    assert audit_by(by_heart, doubtful).suggested.tolist() == np.where(SUSPICIOUS, 2, 1).tolist()
    assert audit_by(doubtful, by_heart).suggested.tolist() == np.where(SUSPICIOUS, 2, 0).tolist()
