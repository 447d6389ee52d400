import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from reweight_core.errors import UserError
from reweight_core.runs.class_weights import class_weights


@pytest.fixture
def run(tmp_path):
    """Write the records of a finished run: two examples of each of two classes, one not visited, and an empty class."""

    def write(**changes):
        columns = {
            "id": np.arange(5),
            "observed": np.array([0, 2, 0, 2, 0]),
            "true": np.array([0, 2, 2, 2, 0]),
            "mean_loss": np.ones(5, np.float32),
            "mean_margin": np.zeros(5, np.float32),
            "last_weight": np.array([3, 0.5, 1, 0.5, 99], np.float32),
            "mean_weight": np.array([1, 2, 2, 4, 99], np.float32),
            "visits": np.array([1, 4, 2, 4, 0]),
        }
        save_file(columns | changes, tmp_path / "samples.safetensors")
        (tmp_path / "samples.json").write_text(json.dumps({"classes": ["cat", "dog", "cow"], "names": list("abcde")}))
        return tmp_path

    return write


def test_the_weights_of_a_class_are_the_means_of_its_visited_examples(run):
    found = class_weights(run())
    assert found["classes"] == ["cat", "dog", "cow"]
    assert found["examples"] == [2, 0, 2]
    assert found["last_weights"] == [2, 1, 0.5]
    assert found["mean_weights"] == [1.5, 1, 3]
    assert found["effective_examples"] == pytest.approx([16 / 10, 0, 2])
    assert found["by_name"]["cow"] == {"index": 2, "last_weight": 0.5, "mean_weight": 3}
    assert json.loads(json.dumps(found)) == found


def test_trusted_examples_have_no_weight_of_a_method(run):
    found = class_weights(run(trusted=np.array([False, True, False, False, False])))
    assert found["examples"] == [2, 0, 1]
    assert (found["last_weights"], found["mean_weights"]) == ([2, 1, 0.5], [1.5, 1, 4])
    assert found["effective_examples"] == pytest.approx([16 / 10, 0, 1])


def test_they_are_class_weights_of_cross_entropy(run):
    import torch

    loss = torch.nn.CrossEntropyLoss(weight=torch.tensor(class_weights(run())["mean_weights"]))
    logits = torch.tensor([[1.0, 0, 0], [0, 2.0, 0]])
    own = -logits.log_softmax(1)
    assert loss(logits, torch.tensor([0, 2])).item() == pytest.approx(((1.5 * own[0, 0] + 3 * own[1, 2]) / 4.5).item())


def test_examples_that_weigh_nothing_are_worth_none(run):
    found = class_weights(run(last_weight=np.zeros(5, np.float32)))
    assert (found["last_weights"], found["effective_examples"]) == ([0, 1, 0], [0, 0, 0])


def test_a_run_without_weights_is_an_error(run, tmp_path):
    with pytest.raises(UserError, match=r"has no weights of examples .* when a run is finished"):
        class_weights(tmp_path)
    with pytest.raises(UserError, match="trained on the clean meta set alone"):
        class_weights(run(visits=np.zeros(5, np.int64)))
