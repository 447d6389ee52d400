"""Defaults that fit a user's own data."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from reweight_core import DataConfig, UserError, as_values, configure, load_data, train
from reweight_core.cli.main import main


def write_table(root, features, labels):
    root.mkdir(exist_ok=True)
    names = ",".join(f"x{i}" for i in range(features.shape[1]))
    rows = [f"{label},{','.join(map(repr, row))}" for label, row in zip(labels, features.tolist(), strict=True)]
    (root / "train.csv").write_text("\n".join([f"label,{names}", *rows]))
    return {"data": "csv", "data_root": root, "test_from": "split:0.25"}


@pytest.fixture
def table(tmp_path):
    rng = np.random.RandomState(0)
    return lambda rows: write_table(tmp_path / "table", rng.randn(rows, 3), np.arange(rows) % 2)


class TestWhatIsLookedAt:
    def test_rows_of_a_table_are_counted(self, table):
        assert (configure(**table(20)).model, configure(**table(20)).weight_decay) == ("linear", 1 / 20)
        assert configure(**table(1500)).model == "mlp"

    @pytest.mark.parametrize("name", ["csv", "csv-lt"])
    def test_lists_of_images_are_no_tables(self, tmp_path, name):
        (tmp_path / "train.csv").write_text("label, file\na,1.png\nb,2.png\n")
        config = configure(data=name, data_root=tmp_path)
        assert (config.model, config.steps) == ("resnet8", 1000)

    def test_images_of_a_folder_are_counted(self, tmp_path):
        for name in "ab":
            (tmp_path / "train" / name).mkdir(parents=True)
            for i in range(3):
                Image.new("L", (8, 8)).save(tmp_path / "train" / name / f"{i}.png")
        assert configure(data="folder", data_root=tmp_path).steps == 1000

    @pytest.mark.parametrize("name", ["csv", "folder"])
    def test_what_cannot_be_read_changes_no_default_and_is_told_when_it_is_loaded(self, name, tmp_path):
        assert configure(data=name).model == configure(data=name, data_root=tmp_path).model == "resnet32"
        with pytest.raises(UserError, match=r"--data-root|train"):
            load_data(configure(DataConfig, data=name, data_root=tmp_path))

    def test_no_torch_is_imported_for_it(self, table):
        root = table(20)["data_root"]
        code = f"import sys, reweight_core; reweight_core.configure(data='csv', data_root={str(root)!r})"
        subprocess.run([sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"], check=True)


class TestRanks:
    def test_what_is_given_wins(self, table):
        config = configure(**table(20), model="mlp", epochs=3)
        assert (config.model, config.epochs, config.steps, config.optimizer) == ("mlp", 3, None, "adam")

    def test_a_run_keeps_the_values_when_the_data_have_changed(self, table):
        values = as_values(configure(**table(20)))
        table(1500)
        assert as_values(configure(**values)) == values

    def test_help_shows_them(self, table, capsys):
        main(["train", "--data", "csv", "--data-root", str(table(20)["data_root"]), "--help"])
        shown = capsys.readouterr().out
        assert "[default: adam]" in shown
        assert "[default: 0.05]" in shown


@pytest.mark.parametrize("noise", [None, "uniform-exclusive:0.3"])
def test_plain_training_on_a_small_table_predicts_what_scikit_learns_logistic_regression_does(noise, tmp_path):
    X, y = load_breast_cancer(return_X_y=True)
    options = write_table(tmp_path / "table", X, y) | {"noise": noise}
    data = load_data(configure(DataConfig, **options))
    rows, test_rows = (split.images.reshape(len(split), -1) for split in (data.train, data.test))
    # the features are standardised before the test set is taken out
    scale = StandardScaler().fit(rows)
    reference = LogisticRegression(max_iter=1000).fit(scale.transform(rows), data.train.labels)
    expected = reference.predict(scale.transform(test_rows))
    run = train(configure(**options, out=tmp_path / "run", steps=300, checkpoint_every="1000epochs"))
    with torch.no_grad():
        found = run.model(torch.from_numpy(data.test.images)).argmax(1).numpy()
    assert np.mean(found == expected) > 0.95
    assert json.loads((tmp_path / "run" / "config.json").read_text())["options"]["model"] == "linear"
