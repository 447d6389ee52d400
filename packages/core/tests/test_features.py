import json
from pathlib import Path

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reweight_core import UserError
from reweight_core.data.features import Features, read_table, read_values

HERE = Path("table.csv")
NUMBERS = st.floats(-1e100, 1e100)


def table(folder, text):
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return read_table(path)


def test_the_training_set_becomes_one_of_mean_zero_and_deviation_one():
    values = np.random.RandomState(0).randn(50, 2) * [3, 1e6] + [7, 1.7e9]
    standardised = Features.of(["a", "b"], values).standardise(values, HERE)
    assert (standardised.dtype, standardised.shape) == (np.float32, (50, 2, 1, 1))
    assert np.allclose(standardised.mean(0), 0, atol=1e-6) and np.allclose(standardised.std(0), 1, atol=1e-6)


@pytest.mark.parametrize("value", [5.0, 0.1, -1e-300])
def test_a_constant_column_becomes_zero_and_is_not_blown_up(value):
    # the deviation of fifty times 0.1 is 3e-17, not 0
    features = Features.of(["a"], np.full((50, 1), value))
    assert features.std == (1.0,)
    assert (features.standardise(np.full((4, 1), value), HERE) == 0).all()
    assert features.standardise(np.full((1, 1), value + 2), HERE).item() == pytest.approx(2)


def test_a_value_too_large_for_the_network_is_named():
    features = Features.of(["a", "b"], np.random.RandomState(0).randn(9, 2))
    with pytest.raises(UserError, match=r"table.csv, row 2: b 1e\+300 is too large"):
        features.standardise(np.array([[0.0, 0], [0, 1e300]]), HERE)


@given(arrays(np.float64, (5, 3), elements=NUMBERS))
def test_saved_as_json_they_standardise_bit_for_bit_the_same(values):
    features = Features.of(["a", "b", "c"], values)
    saved = json.loads(json.dumps(attrs.asdict(features)))
    again = Features(**{key: tuple(part) for key, part in saved.items()})
    assert again == features
    assert again.standardise(values, HERE).tobytes() == features.standardise(values, HERE).tobytes()


def test_columns_are_found_by_name_and_others_are_ignored(tmp_path):
    found = read_values(table(tmp_path, "label,y,x,id\nwhatever,2,1,u\n,4,3,v\n"), ["x", "y"])
    assert found.dtype == np.float64
    assert found.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x\n1\n", "table.csv: has no column 'y', which is a feature of the training set"),
        ("x,y\n1,2\n1,two\n", "table.csv, line 3: y 'two' is no finite number"),
        ("x,y\n1,\n", "table.csv, line 2: y '' is no finite number"),
        ("x,y\n1,1e300\n", "table.csv, line 2: y '1e300' is too large"),
        ("x,y\n1,inf\n", "table.csv, line 2: y 'inf' is no finite number"),
        ("x,y\n1,2\n1\n", "table.csv, line 3: does not have 2 columns"),
        ("x,y\n1,2,3\n", "table.csv, line 2: does not have 2 columns"),
        ("x,y\n", "table.csv: has no rows"),
        ("", "table.csv: has no rows"),
        ("x,x\n1,2\n", "table.csv: two columns have one name (x, x)"),
    ],
)
def test_a_mistake_is_one_line_that_says_where(text, message, tmp_path):
    with pytest.raises(UserError) as refused:
        read_values(table(tmp_path, text), ["x", "y"])
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_what_is_no_text_is_refused(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"\x89PNG\xff")
    with pytest.raises(UserError, match="cannot be read as CSV"):
        read_table(tmp_path / "table.csv")
    with pytest.raises(UserError, match="cannot be read as CSV"):
        read_table(tmp_path)


@pytest.mark.parametrize(
    ("first_line", "message"),
    [
        ("a;b;c", "has no column 'b': its columns are separated by semicolons, and must be by commas"),
        ("a\tb\tc", "has no column 'b': its columns are separated by tabs, and must be by commas"),
        ("a,B", "has no column 'b': rename 'B'"),
        ("a,c,d,e,f,g", "has no column 'b', which is needed; it has a, c, d, e, f, ..."),
    ],
)
def test_a_column_that_is_not_there_is_told_with_what_is(first_line, message, tmp_path):
    row = first_line.translate({ord(letter): "1" for letter in "abcdefgB"})
    found = table(tmp_path, f"{first_line}\n{row}\n")
    assert str(found.lacks("b", ", which is needed")).endswith(message)
