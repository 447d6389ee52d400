import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reweight_core import UserError
from reweight_core.testing import DataSuite
from reweight_data_own.features import load, read_new
from reweight_data_own.options import FeaturesOptions

ROWS, COLUMNS = 60, 4
VALUES = np.random.RandomState(0).randn(ROWS, COLUMNS)
TRUE = np.arange(ROWS) % 3


def write(path, values, **columns):
    pq.write_table(pa.table({f"f{i}": column for i, column in enumerate(values.T)} | columns), path)


def read(root):
    return load(FeaturesOptions(data_root=root))


def refusal(root):
    with pytest.raises(UserError) as refused:
        read(root)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def values_of(split):
    return split.images.read(np.arange(len(split)))[:, :, 0, 0]


def test_columns_of_parquet_are_matched_by_name(tmp_path):
    write(tmp_path / "train.parquet", VALUES, label=TRUE)
    reversed_columns = {"extra": np.ones(9)} | {f"f{i}": VALUES[:9, i] for i in reversed(range(COLUMNS))}
    for part in ("test", "meta"):
        pq.write_table(pa.table(reversed_columns | {"label": TRUE[:9]}), tmp_path / f"{part}.parquet")
    pq.write_table(pa.table(reversed_columns), tmp_path / "new.parquet")
    dataset, options = read(tmp_path), FeaturesOptions(data_root=tmp_path)
    for values in (
        values_of(dataset.test),
        values_of(dataset.meta),
        read_new(options, tmp_path / "new.parquet")[0][:, :, 0, 0],
    ):
        assert np.array_equal(values, VALUES[:9])
    reversed_columns.pop("f2")
    pq.write_table(pa.table(reversed_columns | {"label": TRUE[:9]}), tmp_path / "test.parquet")
    message = "test.parquet: has no column 'f2', which is a feature of the training set"
    assert message in refusal(tmp_path)
    with pytest.raises(UserError, match=message):
        read_new(options, tmp_path / "test.parquet")
    (tmp_path / "train.parquet").unlink()
    with pytest.raises(UserError, match=r"holds no train.parquet any more"):
        read_new(options, tmp_path / "new.parquet")


def test_the_index_of_pandas_is_no_feature(tmp_path):
    columns = {"x": np.arange(4.0), "label": ["a", "b"] * 2, "__index_level_0__": [3, 0, 2, 1]}
    said = {b"pandas": json.dumps({"index_columns": ["__index_level_0__"]}).encode()}
    pq.write_table(pa.table(columns).replace_schema_metadata(said), tmp_path / "train.parquet")
    assert read(tmp_path).input_shape == (1, 1, 1)
    said = {b"pandas": json.dumps({"index_columns": [{"kind": "range"}]}).encode()}
    pq.write_table(pa.table(columns).replace_schema_metadata(said), tmp_path / "train.parquet")
    assert read(tmp_path).input_shape == (2, 1, 1)


def test_an_id_of_the_meta_set_that_is_in_the_training_set_is_refused(tmp_path):
    write(tmp_path / "train.parquet", VALUES, label=TRUE, id=np.arange(ROWS))
    write(tmp_path / "meta.parquet", VALUES[:6], label=TRUE[:6], id=np.arange(6) + ROWS)
    assert len(read(tmp_path).meta) == 6
    write(tmp_path / "meta.parquet", VALUES[:6], label=TRUE[:6], id=np.arange(6) + ROWS - 2)
    assert "meta.parquet, row 0: id '58' is in the training set too; they must be apart" in refusal(tmp_path)


def test_ids_of_a_table_are_names(tmp_path):
    table = {"x": np.arange(4.0), "label": ["a", "b"] * 2, "id": ["p", "q", "r", "s"]}
    pq.write_table(pa.table(table), tmp_path / "train.parquet")
    assert read(tmp_path).train.names == ("p", "q", "r", "s")
    pq.write_table(pa.table(table | {"id": [1, 2, 2, 3]}), tmp_path / "train.parquet")
    assert "train.parquet: two rows have one id" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([[1.0, 2.0], [3.0]]), "has embeddings of several lengths"),
        (pa.array([1.0, None]), "x has missing values"),
        (pa.array([[1.0, 2.0], None]), "x has missing values"),
        (pa.array(["1", "2"]), "x is no column of numbers (string)"),
    ],
)
def test_a_column_of_parquet_that_holds_no_features_is_refused(column, message, tmp_path):
    pq.write_table(pa.table({"x": column, "label": ["a", "b"]}), tmp_path / "train.parquet")
    assert message in refusal(tmp_path)


def test_a_missing_label_of_parquet_is_refused(tmp_path):
    pq.write_table(pa.table({"x": [1.0, 2.0], "label": ["a", None]}), tmp_path / "train.parquet")
    assert "train.parquet, row 1: label is missing" in refusal(tmp_path)


class TestFeaturesOfParquet(DataSuite):
    name, meta_size = "features", 9

    @pytest.fixture
    def given(self, tmp_path):
        write(tmp_path / "train.parquet", VALUES, label=TRUE)
        write(tmp_path / "test.parquet", VALUES, label=TRUE)
        return {"data_root": tmp_path}


def test_damage_behind_the_header_is_told(tmp_path):
    write(tmp_path / "train.parquet", VALUES, label=TRUE)
    content = bytearray((tmp_path / "train.parquet").read_bytes())
    # the first pages; names and sizes are at the end
    content[4:400] = bytes(396)
    (tmp_path / "train.parquet").write_bytes(content)
    assert "train.parquet: cannot be read as Parquet" in refusal(tmp_path)
