"""Clothing1M, WebVision and iNaturalist in their official layouts, with images that the tests make."""

import json

import numpy as np
import pytest
from PIL import Image

from reweight_core import ImageFiles, UserError, configure
from reweight_core.config.load_data import load_data as prepared
from reweight_core.testing import DataSuite
from reweight_data_noisy.options import LargeOptions
from reweight_data_noisy.readers.clothing1m import load as load_clothing1m
from reweight_data_noisy.readers.inaturalist import load as load_inaturalist
from reweight_data_noisy.readers.webvision import load as load_webvision

PER_CLASS = 4


def write_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(seed).randint(256, size=(10, 12, 3)).astype(np.uint8)).save(path)


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_clothing1m(root, annotations=""):
    """Every image's number says its class; an image of the test list is in the noisy list too."""
    labels, lists = (
        {"noisy": [], "clean": []},
        {"noisy_train": [], "clean_train": [], "clean_val": [], "clean_test": []},
    )
    for c in range(14):
        for i in range(PER_CLASS):
            name = f"images/{i}/{c},{i}.jpg"
            write_image(root / name, 100 * c + i)
            lists["noisy_train"].append(name)
            labels["noisy"].append(f"{name} {(c + (i == 0)) % 14}")
        for part in ("clean_train", "clean_val", "clean_test"):
            name = f"images/9/{part},{c}.jpg"
            write_image(root / name, 5000 + c)
            lists[part].append(name)
            labels["clean"].append(f"{name} {c}")
    lists["noisy_train"].append(lists["clean_test"][3])
    labels["noisy"].append(f"{lists['clean_test'][3]} 0")
    for part, names in lists.items():
        write_lines(root / annotations / f"{part}_key_list.txt", names)
    for kind, lines in labels.items():
        write_lines(root / annotations / f"{kind}_label_kv.txt", lines)


def make_webvision(root, validation="val_images_256"):
    """Sixty of the thousand classes; the Flickr images are there too and must not be taken."""
    train, test = [], []
    for c in range(60):
        for i in range(PER_CLASS):
            train.append(f"google/q{c:04d}/{i}.jpg {c}")
            if c < 50:
                write_image(root / f"google/q{c:04d}/{i}.jpg", 100 * c + i)
        test.append(f"val{c:06d}.jpg {c}")
        write_image(root / validation / f"val{c:06d}.jpg", 9000 + c)
    write_lines(root / "info/train_filelist_google.txt", train)
    write_lines(root / "info/train_filelist_flickr.txt", ["flickr/q0000/a.jpg 0"])
    write_lines(root / "info/val_filelist.txt", test)
    write_lines(root / "info/synsets.txt", [f"n{c:08d} animal {c}, beast {c}" for c in range(1000)])


def make_inaturalist(root):
    """Three species, whose numbers have gaps."""
    species = {2: "Aves b", 5: "Plantae e", 9: "Fungi i"}
    for part, count in (("train", PER_CLASS), ("val", 2)):
        images, annotations = [], []
        for number, c in enumerate(species):
            for i in range(count * (3 - number)):
                name = f"train_val2018/Group/{c}/{part}{i}.jpg"
                write_image(root / name, 100 * c + i)
                images.append({"id": 1000 * c + i, "file_name": name, "width": 12, "height": 10})
                annotations.append({"id": len(annotations), "image_id": 1000 * c + i, "category_id": c})
        content = {"images": images, "annotations": annotations[::-1]}
        content["categories"] = [{"id": c, "name": name} for c, name in species.items()]
        (root / f"{part}2018.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="session")
def clothing1m(tmp_path_factory):
    root = tmp_path_factory.mktemp("clothing1m")
    make_clothing1m(root)
    return root


@pytest.fixture(scope="session")
def webvision(tmp_path_factory):
    root = tmp_path_factory.mktemp("webvision")
    make_webvision(root)
    return root


@pytest.fixture(scope="session")
def inaturalist(tmp_path_factory):
    root = tmp_path_factory.mktemp("inaturalist")
    make_inaturalist(root)
    return root


class TestClothing1M(DataSuite):
    name = "clothing1m"
    meta_size = 14

    @pytest.fixture
    def given(self, clothing1m):
        return {"data_root": clothing1m, "image_size": 8}


class TestWebVision50(DataSuite):
    name = "webvision-50"
    meta_size = 50

    @pytest.fixture
    def given(self, webvision):
        return {"data_root": webvision, "image_size": 8}


class TestINaturalist2018(DataSuite):
    name = "inaturalist-2018"
    meta_size = 3

    @pytest.fixture
    def given(self, inaturalist):
        return {"data_root": inaturalist, "image_size": 8}


def test_clothing1m_trains_on_the_noisy_list_less_what_is_in_a_clean_one(clothing1m):
    dataset = load_clothing1m(LargeOptions(data_root=clothing1m, image_size=8))
    assert len(dataset.train) == 14 * PER_CLASS and len(dataset.test) == len(dataset.meta) == 14
    assert dataset.train.names[5] == "images/1/1,1.jpg"
    assert dataset.train.labels[:6].tolist() == [1, 0, 0, 0, 2, 1]
    assert dataset.classes[:2] == ("T-Shirt", "Shirt") and not dataset.trusted
    assert isinstance(dataset.train.images, ImageFiles) and dataset.augment == "resized-crop"
    assert dataset.meta.names[4] == "images/9/clean_val,4.jpg" and dataset.meta.labels.tolist() == list(range(14))


def test_clothing1ms_lists_may_lie_in_annotations(tmp_path):
    make_clothing1m(tmp_path, "annotations")
    assert len(load_clothing1m(LargeOptions(data_root=tmp_path, image_size=8)).train) == 14 * PER_CLASS


def test_webvision_50_has_the_first_50_classes_from_google(webvision):
    dataset = load_webvision(LargeOptions(data_root=webvision, image_size=8))
    assert dataset.train.labels.tolist() == [c for c in range(50) for _ in range(PER_CLASS)]
    assert all(name.startswith("google/") for name in dataset.train.names)
    assert dataset.test.names == tuple(f"val_images_256/val{c:06d}.jpg" for c in range(50))
    assert dataset.classes[7] == "animal 7"


def test_webvisions_validation_images_may_be_of_full_size(tmp_path):
    make_webvision(tmp_path, "val_images")
    dataset = load_webvision(LargeOptions(data_root=tmp_path, image_size=8))
    assert dataset.test.names[0] == "val_images/val000000.jpg"


def test_inaturalist_joins_images_with_their_annotations(inaturalist):
    dataset = load_inaturalist(LargeOptions(data_root=inaturalist, image_size=8))
    assert np.bincount(dataset.train.labels).tolist() == [3 * PER_CLASS, 2 * PER_CLASS, PER_CLASS]
    assert dataset.classes == ("Aves b", "Plantae e", "Fungi i") and dataset.trusted
    for name, label in zip(dataset.train.names, dataset.train.labels, strict=True):
        assert int(name.split("/")[2]) == [2, 5, 9][label]
    assert len(dataset.test) == 12


def test_true_labels_of_clothing1m_are_unknown(clothing1m):
    data = prepared(configure(data="clothing1m", data_root=clothing1m, image_size=8))
    assert (data.true_labels == -1).all() and data.noise_rate is None


def append(path, line):
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")


def remove_one(root):
    (root / "images/2/3,2.jpg").unlink()


WRONG = [
    (
        lambda root: (root / "clean_label_kv.txt").unlink(),
        "clean_label_kv.txt is missing: --data-root must hold",
    ),
    (remove_one, "1 of its 56 images are not below .*images/2/3,2.jpg for example"),
    (
        lambda root: append(root / "noisy_label_kv.txt", "images/x.jpg"),
        "line 58: 'images/x.jpg' must be a file and",
    ),
    (lambda root: append(root / "noisy_label_kv.txt", "images/x.jpg 14"), r"line 58: label 14 is outside 0\.\.13"),
    (lambda root: append(root / "noisy_train_key_list.txt", "images/y.jpg"), "1 images have no label.*images/y.jpg"),
    (
        lambda root: append(root / "noisy_train_key_list.txt", "images/0/0,0.jpg"),
        "train_key_list.txt: names a file twice",
    ),
    (lambda root: append(root / "clean_val_key_list.txt", "images/9/clean_val,0.jpg"), "names a file twice"),
    (lambda root: write_lines(root / "clean_test_key_list.txt", [""]), "clean_test_key_list.txt: is empty"),
    (
        lambda root: (
            append(root / "noisy_train_key_list.txt", "../x.jpg"),
            append(root / "noisy_label_kv.txt", "../x.jpg 1"),
        ),
        "file '../x.jpg' must be a path inside",
    ),
]


@pytest.mark.parametrize(("harm", "message"), WRONG)
def test_a_wrong_list_is_refused_in_one_line(tmp_path, harm, message):
    make_clothing1m(tmp_path)
    harm(tmp_path)
    with pytest.raises(UserError, match=message) as refused:
        load_clothing1m(LargeOptions(data_root=tmp_path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("load", [load_clothing1m, load_webvision, load_inaturalist])
def test_without_files_the_message_says_what_must_be_there(tmp_path, load):
    for root in (None, tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match=r"--data-root|is missing") as refused:
            load(LargeOptions(data_root=root))
        assert "hold" in str(refused.value) and "\n" not in str(refused.value)


def test_other_json_is_no_list_of_inaturalist(inaturalist, tmp_path):
    for content, message in (("[]", "not those of iNaturalist"), ("{", "cannot be read as JSON")):
        (tmp_path / "train2018.json").write_text(content, encoding="utf-8")
        (tmp_path / "val2018.json").write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=message):
            load_inaturalist(LargeOptions(data_root=tmp_path))
