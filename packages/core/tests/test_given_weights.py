"""``--weights``: the user's own weight of each training example."""

import numpy as np
import pytest
import torch

from reweight_core.data.given_weights import read_weights
from reweight_core.errors import UserError
from reweight_core.testing import tiny_parts, train_in
from reweight_core.training.build import begin, build_parts
from reweight_core.training.loop import train_epoch
from reweight_core.training.state import TrainingState


@pytest.fixture
def file(tmp_path):
    def write(weights, head="id,weight"):
        path = tmp_path / "weights.csv"
        path.write_text("\n".join([head, *(f"{i},{w}" for i, w in weights.items())]) + "\n")
        return path

    return write


def test_the_weights_of_the_training_examples_are_read_and_others_are_one(file):
    data = tiny_parts("erm", model="mlp", plant=2, meta_use="both").data
    ids = data.ids.tolist()
    found = read_weights(file({ids[3]: 0, ids[5]: 2.5, ids[-1]: 7}), data)
    wanted = np.ones(len(ids))
    wanted[[3, 5]] = 0, 2.5
    # the last is a trusted one: its weight is 1
    assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("id,w\n1,1\n", "has no column 'weight'"),
        ("id,weight\n1,1\n2,-1\n", "line 3: must have a position as its id and a number from 0 on"),
        ("id,weight\n1,nan\n", "line 2: must have"),
        ("id,weight\nx,1\n", "line 2: must have"),
        ("id,weight\n1,1\n1,1\n", "line 3: id 1 has a weight already"),
        ("id,weight\n99999,1\n", "names no example of the training set"),
    ],
)
def test_a_wrong_file_is_told_with_its_line(text, problem, tmp_path):
    (tmp_path / "weights.csv").write_text(text)
    with pytest.raises(UserError, match=problem):
        tiny_parts("erm", weights=tmp_path / "weights.csv")


def test_weights_that_are_all_zero_are_refused(file):
    data = tiny_parts("erm", model="mlp").data
    with pytest.raises(UserError, match="every training example has weight 0"):
        read_weights(file(dict.fromkeys(data.ids.tolist(), 0)), data)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_run_goes_on_with_the_weights_that_it_began_with(file, tmp_path):
    ids = tiny_parts("erm", model="mlp").data.ids.tolist()
    path = file({identity: i % 3 for i, identity in enumerate(ids)})
    whole = train_in(tmp_path / "whole", tiny_parts("erm", model="mlp", weights=path, epochs=2))
    half = tiny_parts("erm", model="mlp", weights=path, epochs=2)
    state = TrainingState(half)
    begin(half)
    train_epoch(state, state.next_epoch())
    kept = state.checkpoint(None)
    # the file is gone by now
    path.unlink()
    again = TrainingState(build_parts(half.config, half.data, restored=True))
    again.restore(kept)
    train_epoch(again, again.next_epoch())
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(again.parts.model.state_dict()[name], tensor), name
