"""What a network takes and returns: tensors, tuples, mappings, objects."""

from collections import UserDict, namedtuple
from types import SimpleNamespace

import pytest
import torch

from reweight_core import UserError
from reweight_core.data.inputs import arguments, floating_type, joined, length_of, logits_of, mapped

X = torch.arange(6.0).reshape(3, 2)


def test_a_tuple_is_positional_and_a_mapping_goes_by_keyword():
    assert arguments((X, None)) == ((X, None), {})
    assert arguments(UserDict(x=X, cache=False)) == ((), {"x": X, "cache": False})
    (alone,), keywords = arguments(X)
    assert alone is X
    assert not keywords


def test_every_tensor_is_mapped_and_nothing_else():
    found = mapped(lambda x: x + 1, {"a": X, "b": [X, (X, "text")], "c": None})
    assert torch.equal(found["b"][1][0], X + 1)
    assert found["b"][1][1] == "text"
    assert found["c"] is None


def test_length_and_type_are_those_of_the_first_tensor_that_has_them():
    assert length_of({"scale": torch.tensor(1.0), "ids": torch.zeros(4, 2, dtype=torch.int64)}) == 4
    assert floating_type((X.long(), X.double())) == torch.float64
    assert floating_type(X.long()) == floating_type(X.half()) == torch.float32


def test_batches_of_one_structure_are_joined():
    found = joined({"x": X, "more": (X, True)}, {"x": X[:1], "more": (X[:2], True)})
    assert torch.equal(found["x"], torch.cat([X, X[:1]]))
    assert torch.equal(found["more"][0], torch.cat([X, X[:2]]))
    assert found["more"][1] is True
    for other in ({"x": X[:, :1], "more": (X, True)}, {"x": X}, X):
        with pytest.raises(UserError, match="pad all to one length"):
            joined({"x": X, "more": (X, True)}, other)


def test_logits_are_found_in_whatever_a_network_returns():
    outputs = namedtuple("outputs", ["hidden", "logits"])
    for output in (X, (X, None), [X], {"logits": X}, UserDict(logits=X), SimpleNamespace(logits=X), outputs(None, X)):
        assert logits_of(output) is X
    for output in (None, {}, {"hidden": X}, (), ("text",), SimpleNamespace(logits=None)):
        with pytest.raises(UserError, match=r"must return logits.*returns"):
            logits_of(output)
