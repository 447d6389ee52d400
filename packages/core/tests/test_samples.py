"""What a run knew of its training examples, read back."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from reweight_core import UserError, read_samples

N = 4
COLUMNS = {
    **{
        "id": np.arange(N),
        "observed": np.array([0, 1, 1, 0]),
        "true": np.array([-1, 1, 0, 0]),
        "visits": np.ones(N, int),
    },
    **{name: np.ones(N) for name in ("last_weight", "mean_weight", "mean_loss", "mean_margin")},
}
WORDS = {"classes": ["x", "y"], "names": ["a", "b", "c", "d"]}


def write(folder, columns=COLUMNS, words=WORDS):
    save_file(columns, folder / "samples.safetensors")
    (folder / "samples.json").write_text(json.dumps(words))


def test_what_is_whole_is_read(tmp_path):
    write(tmp_path)
    samples = read_samples(tmp_path)
    assert (samples.names, samples.classes) == (WORDS["names"], WORDS["classes"])
    assert samples.columns.keys() == COLUMNS.keys()


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("observed", np.array([0, 1, 2, 0])),
        ("observed", np.array([0, 1, -1, 0])),
        ("true", np.array([0, 1, 2, 0])),
        ("observed", np.zeros(N)),
        ("visits", np.zeros((N, 1), int)),
        ("mean_weight", np.zeros(N, bool)),
        ("planted", np.zeros(N)),
        ("id", np.zeros(N + 1, int)),
        ("mean_loss", None),
    ],
)
def test_columns_of_another_kind_are_refused(name, column, tmp_path):
    columns = {other: values for other, values in COLUMNS.items() if other != name}
    write(tmp_path, columns if column is None else columns | {name: column})
    with pytest.raises(UserError, match="has no weights of examples"):
        read_samples(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        {"classes": ["x", {}], "names": list("abcd")},
        {"classes": "xy", "names": list("abcd")},
        {"classes": ["x"], "names": list("abcd")},
        {"classes": ["x", "y"], "names": list("abc")},
        {"classes": ["x", "y"], "names": [1, 2, 3, 4]},
        {"names": list("abcd")},
        [],
        None,
    ],
)
def test_names_of_another_kind_are_refused(words, tmp_path):
    write(tmp_path, words=words)
    with pytest.raises(UserError, match="has no weights of examples"):
        read_samples(tmp_path)
