import io
import os
import pickle
import shutil

import attrs
import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.feature_extraction.text import TfidfVectorizer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from reweight_core import RunConfig, UserError, configure, evaluate, load_data, predict, train
from reweight_core import load as load_run
from reweight_core.testing import DataSuite
from reweight_data_own import encoded_images, texts
from reweight_data_own.hf import load
from reweight_data_own.options import HfOptions

ROWS = 40
TRUE = np.arange(ROWS) % 2
SEEN = np.where(np.arange(ROWS) % 5 == 0, 1 - TRUE, TRUE)
WORDS = (("good", "fine", "great"), ("bad", "poor", "awful"))
TEXTS = [f"a {WORDS[label][i % 3]} thing {i % 7}" for i, label in enumerate(TRUE)]
CLASSES = datasets.ClassLabel(names=["bird", "ant"])


def pixels(grey=False, sizes=((9, 7),)):
    rng = np.random.RandomState(0)
    shapes = [sizes[i % len(sizes)] + (() if grey else (3,)) for i in range(ROWS)]
    return [rng.randint(256, size=shape).astype(np.uint8) for shape in shapes]


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def image_rows(arrays, labels=TRUE, **columns):
    table = {"image": [{"bytes": png(array), "path": None} for array in arrays], "label": labels.tolist(), **columns}
    features = {"image": datasets.Image(), "label": CLASSES} | {name: CLASSES for name in columns}
    return datasets.Dataset.from_dict(table, features=datasets.Features(features))


def text_rows(texts=TEXTS, labels=SEEN, **columns):
    return datasets.Dataset.from_dict({"text": list(texts), "label": labels[: len(texts)].tolist(), **columns})


def save(root, **splits):
    datasets.DatasetDict(splits).save_to_disk(root / "saved")
    return str(root / "saved")


def read(name, **options):
    return load(HfOptions(hf_name=name, **options))


def refusal(name, **options):
    with pytest.raises(UserError) as refused:
        read(name, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def values_of(split):
    return split.images.read(np.arange(len(split)))[:, :, 0, 0]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tokenizer of words and a small model, not trained, as transformers saves them."""
    folder = tmp_path_factory.mktemp("bert")
    vocabulary = ["[PAD]", "[UNK]", *sorted({word for text in TEXTS for word in text.split()})]
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=8, **size)).save_pretrained(folder)
    return folder


def test_images_are_decoded_with_the_names_of_their_classes(tmp_path):
    arrays = pixels()
    name = save(tmp_path, train=image_rows(arrays), test=image_rows(arrays[:4], TRUE[:4]))
    dataset = read(name)
    assert dataset.classes == ("bird", "ant") and (dataset.train.labels == TRUE).all()
    assert np.array_equal(dataset.train.images, np.stack(arrays).transpose(0, 3, 1, 2))
    assert len(dataset.test) == 4 and dataset.augment == "crop-flip" and not dataset.trusted
    assert np.allclose(dataset.mean, np.stack(arrays).mean((0, 1, 2)))


def test_grey_images_have_one_channel(tmp_path):
    arrays = pixels(grey=True)
    assert np.array_equal(read(save(tmp_path, train=image_rows(arrays))).train.images, np.stack(arrays)[:, None])


def test_images_of_several_sizes_need_one(tmp_path):
    name = save(tmp_path, train=image_rows(pixels(sizes=((9, 7), (5, 5)))))
    assert "split 'train', row 1: is 5 x 5 pixels, but others are 7 x 9; give --image-size N" in refusal(name)
    assert read(name, image_size=6).train.images.shape == (ROWS, 3, 6, 6)


def test_images_that_are_decoded_while_training_are_the_same(tmp_path):
    name = save(tmp_path, train=image_rows(pixels()), meta=image_rows(pixels()[:6], TRUE[:6]))
    streamed, whole = (read(name, image_size=6, stream=stream) for stream in ("on", "off"))
    ids = np.array([5, 0, 39])
    assert np.array_equal(streamed.train.images.read(ids), whole.train.images[ids])
    part = streamed.train.take(np.array([7, 3])).followed_by(streamed.meta.take(np.array([2])))
    again = pickle.loads(pickle.dumps(part.images)).read(np.arange(3))
    assert np.array_equal(again, np.concatenate([whole.train.images[[7, 3]], whole.meta.images[[2]]]))
    one, other = (streamed.train.images.read(ids, (1, epoch)) for epoch in (0, 1))
    assert not np.array_equal(one, other)
    given = {"hf_name": name, "image_size": 6, "stream": "on", "test_from": "none", "model": "mlp", "steps": 3}
    assert train(configure(data="hf", out=tmp_path / "run", **given)).summary["steps"] == 3


def test_images_that_memory_would_not_hold_are_decoded_while_training(tmp_path, monkeypatch):
    monkeypatch.setattr(encoded_images, "total_memory", lambda: 0)
    name = save(tmp_path, train=image_rows(pixels()))
    assert isinstance(read(name, image_size=6).train.images, encoded_images.EncodedImages)
    assert "are brought to one size; give --image-size N" in refusal(name)


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    rows = [{"bytes": png(pixels()[0]), "path": None}, {"bytes": b"none", "path": None}]
    table = datasets.Dataset.from_dict(
        {"image": rows, "label": [0, 1]}, features=datasets.Features({"image": datasets.Image(), "label": CLASSES})
    )
    assert "saved, split 'train', row 1: cannot be read as an image" in refusal(save(tmp_path, train=table))


def test_true_labels_beside_those_that_training_sees(tmp_path):
    name = save(tmp_path, train=image_rows(pixels(), SEEN, true_label=TRUE.tolist()))
    data = load_data(configure(data="hf", hf_name=name, test_from="none", meta_size=4))
    assert (data.train.labels == SEEN[data.ids]).all() and (data.true_labels == TRUE[data.ids]).all()
    assert data.noise_rate == (SEEN != TRUE)[data.ids].mean() > 0


@pytest.mark.parametrize(
    ("names", "true"), [(["ant", "bird"], (1 - TRUE).tolist()), (None, np.array(["bird", "ant"])[TRUE].tolist())]
)
def test_true_labels_are_matched_by_the_names_of_their_classes(tmp_path, names, true):
    kind = datasets.ClassLabel(names=names) if names else datasets.Value("string")
    table = text_rows().cast_column("label", CLASSES)
    dataset = read(save(tmp_path, train=table.add_column("true_label", true).cast_column("true_label", kind)))
    assert (dataset.train.labels == TRUE).all() and (dataset.observed == SEEN).all()
    other = table.add_column("true_label", ["ant", "cat"] * (ROWS // 2))
    message = "true_label, row 1: 'cat' is none of the labels' classes (bird, ant)"
    assert message in refusal(save(tmp_path / "other", train=other))


def test_texts_become_tf_idf_of_the_training_texts(tmp_path):
    name = save(tmp_path, train=text_rows(), test=text_rows(["a great unheard thing", "awful"], np.array([0, 1])))
    dataset = read(name)
    reference = TfidfVectorizer(sublinear_tf=True).fit(TEXTS)
    assert np.allclose(values_of(dataset.train), reference.transform(TEXTS).toarray(), atol=1e-6)
    test = reference.transform(["a great unheard thing", "awful"]).toarray()
    assert np.allclose(values_of(dataset.test), test, atol=1e-6)
    assert dataset.classes == ("0", "1") and dataset.input_shape == (test.shape[1], 1, 1)


def test_more_columns_than_wanted_are_reduced_with_little_lost(tmp_path):
    name = save(tmp_path, train=text_rows())
    whole, reduced = values_of(read(name).train), values_of(read(name, text_features=4).train)
    assert reduced.shape == (ROWS, 4)
    # the best four directions, by the singular values of the whole
    best = (np.linalg.svd(whole, compute_uv=False)[:4] ** 2).sum()
    assert (reduced**2).sum() == pytest.approx(best, rel=1e-4)


def test_more_columns_than_memory_holds_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "total_memory", lambda: 2 * 4 * 300 * ROWS - 1)
    assert "--text-features 300: would take" in refusal(save(tmp_path, train=text_rows()))


def test_features_of_texts_are_kept_until_the_texts_change(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = read(save(tmp_path, train=text_rows()))
    (kept,) = (tmp_path / "cache" / "reweight").iterdir()
    assert first.train.images.parts[0].path == kept
    before = kept.stat().st_mtime_ns
    assert np.array_equal(values_of(read(str(tmp_path / "saved")).train), values_of(first.train))
    assert kept.stat().st_mtime_ns == before
    changed = tmp_path / "changed"
    values = values_of(read(save(changed, train=text_rows(["other", *TEXTS[1:]]))).train)
    assert len(list(kept.parent.iterdir())) == 2 and values.shape[1] == first.input_shape[0] + 1
    # a cache that cannot be written costs time, no more
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="the features of the texts cannot be kept"):
        assert np.array_equal(values_of(read(str(tmp_path / "saved")).train), values_of(first.train))


def test_texts_become_mean_hidden_states_of_a_given_model(tmp_path, bert):
    some = ["good", "a bad thing", "a great thing 3 and more words than the model takes"]
    name = save(tmp_path, train=text_rows(some, np.array([0, 1, 0])))
    found = values_of(read(name, text_model=str(bert)).train)
    model, tokenizer = BertModel.from_pretrained(bert).eval(), PreTrainedTokenizerFast.from_pretrained(bert)
    for text, row in zip(some, found, strict=True):
        # one by one, so that there is no padding to be masked
        tokens = torch.tensor([tokenizer(text)["input_ids"][:8]])
        with torch.no_grad():
            assert np.allclose(model(tokens).last_hidden_state.mean(1)[0], row, atol=1e-5)


def test_new_texts_and_images_are_predicted(tmp_path, bert):
    name = save(tmp_path, train=text_rows(labels=TRUE), test=text_rows(TEXTS[:5], TRUE[:5]))
    texts = [text.replace(" ", space) for text, space in zip(TEXTS[:5], " \x0c\u2028\x85 ", strict=True)]
    (tmp_path / "new.txt").write_bytes(b"\xef\xbb\xbf" + "\n".join([*texts, ""]).encode())
    for further in ({}, {"text_model": str(bert)}):
        out = tmp_path / f"run{len(further)}"
        run = train(configure(data="hf", hf_name=name, steps=60, out=out, **further))
        found = predict(load_run(run.folder), [tmp_path / "new.txt"])
        assert found.names[1] == f"{tmp_path / 'new.txt'}:2"
        assert (found.probabilities.argmax(1) == TRUE[:5]).mean() == run.summary["test_accuracy"]
    images = save(tmp_path / "images", train=image_rows(pixels(grey=True)))
    Image.fromarray(pixels()[0]).save(tmp_path / "new.png")
    run = train(
        configure(data="hf", hf_name=images, test_from="none", model="mlp", steps=2, out=tmp_path / "images/run")
    )
    assert predict(load_run(run.folder), [tmp_path / "new.png"]).probabilities.shape == (1, 2)


def test_a_network_takes_texts_only_as_they_were_made_for_it(tmp_path):
    name = save(tmp_path, train=text_rows(labels=TRUE), test=text_rows(TEXTS[:5], TRUE[:5]))
    (tmp_path / "new.txt").write_text("a good thing")
    config = configure(data="hf", hf_name=name, steps=2, out=tmp_path / "run")
    run, fingerprint = train(config).folder, load_data(config).fingerprint
    before = predict(load_run(run), [tmp_path / "new.txt"]).probabilities
    # as many words, and as many features
    shutil.rmtree(name)
    save(tmp_path, train=text_rows([text.replace("good", "best") for text in TEXTS], TRUE), test=text_rows(TEXTS[:5]))
    for use in (lambda: predict(load_run(run), [tmp_path / "new.txt"]), lambda: evaluate(run)):
        with pytest.raises(UserError, match=r"inputs made by TF-IDF of 40 training texts \(.*, and now .*train anew$"):
            use()
    assert load_data(config).fingerprint != fingerprint
    shutil.rmtree(name)
    # other test texts are no other features
    save(tmp_path, train=text_rows(labels=TRUE), test=text_rows(TEXTS[5:9], TRUE[5:9]))
    assert np.array_equal(predict(load_run(run), [tmp_path / "new.txt"]).probabilities, before)
    assert evaluate(run)["test_size"] == 4 and load_data(config).fingerprint == fingerprint


def test_a_text_model_is_known_by_what_its_files_hold(tmp_path, bert, monkeypatch):
    model = shutil.copytree(bert, tmp_path / "model")
    said = texts.representation_of(TEXTS, str(model), 300)
    assert said == texts.representation_of(["other"], str(shutil.copytree(model, tmp_path / "moved")), 2)
    (model / "optimizer.pt").write_text("none of it")
    os.utime(model / "config.json", ns=(0, 0))
    assert texts.representation_of(TEXTS, str(model), 300) == said
    (model / "tokenizer.json").write_text((model / "tokenizer.json").read_text().replace("good", "best"))
    assert texts.representation_of(TEXTS, str(model), 300) != said
    cached = tmp_path / "models--some--bert" / "snapshots" / "0123abcd" / "config.json"
    monkeypatch.setattr("transformers.utils.cached_file", lambda name, file: str(cached))
    assert texts.representation_of(TEXTS, "some/bert", 300) == "the hidden states of some/bert (0123abcd)"


def test_defaults_follow_from_what_the_rows_are(tmp_path):
    assert configure(data="hf", hf_name=save(tmp_path, train=text_rows())).model == "linear"
    assert configure(data="hf", hf_name=save(tmp_path / "images", train=image_rows(pixels()))).model == "resnet8"
    (tmp_path / "empty").mkdir()
    usual = attrs.fields(RunConfig).model.default
    assert configure(data="hf").model == configure(data="hf", hf_name=str(tmp_path / "empty")).model == usual


def test_what_the_options_name_is_found(tmp_path):
    rows = text_rows(labels=SEEN, gold=TRUE.tolist(), title=TEXTS).rename_column("label", "class")
    name = save(tmp_path, **{"a": rows, "b": rows.select(range(5))})
    names = {"hf_train": "a", "hf_test": "b", "label_column": "class", "true_label_column": "gold"}
    dataset = read(name, **names, input_column="title")
    assert (dataset.observed == SEEN).all() and (dataset.train.labels == TRUE).all() and len(dataset.test) == 5
    assert "of columns with images or texts there are several (text, title); name one by --input-column" in refusal(
        name, **names
    )
    for changed, message in (
        ({"hf_test": "c"}, "--hf-test c: "),
        ({"hf_train": "train"}, "has the splits a, b"),
        ({"label_column": None}, "has no labels (label, labels, y); name their column by --label-column"),
        ({"true_label_column": "x"}, "--true-label-column x: "),
        ({"input_column": "gold"}, "of columns with images or texts there are none"),
    ):
        assert message in refusal(name, **{**names, "input_column": "title", **changed})


def test_labels_that_are_none_are_refused(tmp_path):
    test = text_rows(labels=np.where(TRUE == 1, -1, 0))
    name = save(tmp_path, train=text_rows(), test=test)
    assert "split 'test': has rows without a label (below 0); name another split by --hf-test" in refusal(name)
    assert "label, row 1: label -1 is negative; leave rows without a label out" in refusal(name, hf_train="test")
    other = image_rows(pixels()).cast_column("label", datasets.ClassLabel(names=["ant", "bird"]))
    assert "split 'test': has other classes than" in refusal(
        save(tmp_path / "other", train=image_rows(pixels()), test=other)
    )


def test_a_run_knows_its_dataset_and_its_model_from_any_folder(tmp_path, bert, monkeypatch):
    save(tmp_path, train=text_rows(labels=TRUE))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "new.txt").write_text("a good thing")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bert, "model")
    given = {"hf_name": "saved", "text_model": "model", "test_from": "none", "steps": 2}
    run = train(configure(data="hf", out=tmp_path / "run", **given)).folder
    monkeypatch.chdir("elsewhere")
    assert predict(load_run(run), [tmp_path / "elsewhere" / "new.txt"]).probabilities.shape == (1, 2)


def test_a_dataset_or_a_model_that_is_not_there_is_one_line(tmp_path):
    assert refusal(None) == "--hf-name is missing: name a folder of a dataset (save_to_disk), or one of the Hub"
    (tmp_path / "empty").mkdir()
    assert refusal(str(tmp_path / "empty")).startswith(f"--hf-name {tmp_path / 'empty'}: cannot be opened (")
    name = save(tmp_path, train=text_rows())
    assert refusal(name, text_model=str(tmp_path / "empty")).startswith("--text-model ")


class TestHfOfTexts(DataSuite):
    name, meta_size = "hf", 8

    @pytest.fixture
    def given(self, tmp_path):
        return {"hf_name": save(tmp_path, train=text_rows()), "test_from": "split:0.1"}


class TestHfLongTail(TestHfOfTexts):
    name = "hf-lt"


class TestHfOfStreamedImages(DataSuite):
    name, meta_size = "hf", 8

    @pytest.fixture
    def given(self, tmp_path):
        name = save(tmp_path, train=image_rows(pixels()), test=image_rows(pixels()[:4], TRUE[:4]))
        return {"hf_name": name, "image_size": 6, "stream": "on"}
