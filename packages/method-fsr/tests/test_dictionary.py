import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reweight_core import Dataset, Examples, Split
from reweight_method_fsr.dictionary import Dictionary

# how many examples each class has; classes may have vanished
COUNTS = st.lists(st.integers(0, 9), min_size=2, max_size=6).filter(any)


def make(counts, size, probe_size, augment="none"):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
    np.random.RandomState(0).shuffle(labels)
    # the first pixel of an image says which example it is
    images = np.random.RandomState(1).randint(256, size=(len(labels), 1, 4, 4)).astype(np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels))
    one_each = Split(np.zeros((len(counts), 1, 4, 4), np.uint8), np.arange(len(counts)))
    classes = tuple(map(str, range(len(counts))))
    dataset = Dataset(one_each, one_each, classes, mean=(0.0,), std=(1.0,), padding=1)
    examples = Examples(Split(images, labels), dataset, torch.device("cpu"), torch.float32, augment)
    return Dictionary(examples, size, probe_size, torch.Generator().manual_seed(0)), labels


@given(COUNTS, st.integers(1, 30), st.integers(1, 20))
def test_it_is_as_balanced_as_the_classes_allow_from_the_start(counts, size, probe_size):
    dictionary, labels = make(counts, size, probe_size)
    chosen = dictionary.chosen().numpy()
    present = [label for label, count in enumerate(counts) if count]
    assert len(set(chosen)) == len(chosen)
    found = np.bincount(labels[chosen], minlength=len(counts))
    for place, label in enumerate(present):
        share = max(size // len(present) + (place < size % len(present)), 1)
        assert found[label] == min(share, counts[label])


@given(COUNTS, st.integers(1, 30), st.integers(1, 20))
def test_a_probe_batch_has_q_examples_as_balanced_as_can_be(counts, size, probe_size):
    dictionary, labels = make(counts, size, probe_size)
    chosen = set(dictionary.chosen().tolist())
    present = [label for label, count in enumerate(counts) if count]
    for _ in range(3):
        probe = dictionary.draw_batch()
        assert len(probe.ids) == probe_size
        assert set(probe.ids.tolist()) <= chosen
        assert probe.labels.tolist() == labels[probe.ids.numpy()].tolist()
        assert probe.inputs[:, 0, 0, 0].tolist() == probe.ids.tolist()
        drawn = np.bincount(probe.labels.numpy(), minlength=len(counts))
        assert drawn.sum() == probe_size
        assert drawn[present].max() - drawn[present].min() <= 1
        # one comes again only after all of its class have come
        for label in present:
            of_class = probe.ids[probe.labels == label].tolist()
            available = sum(labels[i] == label for i in chosen)
            assert len(set(of_class)) == min(len(of_class), available)


def test_over_many_draws_every_trusted_example_is_drawn_equally_often():
    dictionary, _ = make([9, 2, 0, 5], size=12, probe_size=8)
    drawn = torch.cat([dictionary.draw_batch().ids for _ in range(3000)])
    labels = dictionary._classes
    shares = drawn.bincount(minlength=16).double() / len(drawn)
    for row in range(len(labels)):
        ids = dictionary.ids[row][dictionary.ids[row] >= 0]
        assert shares[ids].numpy() == pytest.approx(np.full(len(ids), 1 / 3 / len(ids)), rel=0.12)


def test_the_best_of_every_class_are_taken_and_the_unseen_left_out():
    dictionary, labels = make([6, 6, 6], size=6, probe_size=3)
    scores = torch.linspace(1, 0, 18)
    seen = torch.ones(18, dtype=torch.bool)
    best = int(np.flatnonzero(labels == 0)[0])
    seen[best] = False
    before = dictionary.ids.clone()
    # of class 2 nothing was seen: it keeps what it has
    seen[torch.from_numpy(labels == 2)] = False
    dictionary.refresh(scores, seen)
    assert sorted(dictionary.ids[0].tolist()) == np.flatnonzero(labels == 0)[1:3].tolist()
    assert sorted(dictionary.ids[1].tolist()) == np.flatnonzero(labels == 1)[:2].tolist()
    assert torch.equal(dictionary.ids[2], before[2])


def test_images_are_augmented_once_and_then_stay():
    dictionary, _ = make([9, 9], size=18, probe_size=18, augment="crop")

    def images():
        probe = dictionary.draw_batch()
        return probe.inputs[probe.ids.argsort()]

    first = images()
    assert torch.equal(first, images())
    dictionary.augment()
    assert not torch.equal(first, images())
    assert torch.equal(images(), images())


def test_a_restored_dictionary_draws_the_same():
    saved, _ = make([9, 9], size=8, probe_size=6, augment="crop")
    other, _ = make([9, 9], size=8, probe_size=6, augment="crop")
    saved.refresh(torch.linspace(1, 0, 18), torch.ones(18, dtype=torch.bool))
    saved.draw_batch()
    other.load_state_dict({name: tensor.clone() for name, tensor in saved.state_dict().items()})
    one, two = saved.draw_batch(), other.draw_batch()
    assert torch.equal(one.ids, two.ids)
    assert torch.equal(one.inputs, two.inputs)
