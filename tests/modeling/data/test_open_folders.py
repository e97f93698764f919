import pytest

from modeling.data.dataset import TEST, TRAIN, VALIDATION, Finding
from modeling.data.forms.open import check_learnable, open_dataset
from modeling.errors import DataError
from tests.support.images import make_class_folders, touch


def names_of(dataset):
    return [dataset.name(index) for index in range(dataset.num_images)]


def test_a_folder_per_class_is_read_recursively_in_a_fixed_order(tmp_path):
    touch(tmp_path, "b/2.JPG", "b/1.png", "a/deep/er/x.webp", "a/y.cr2", "a/.hidden/z.png", "a/notes.txt", ".git/q.png")

    dataset = open_dataset(tmp_path)

    assert (dataset.kind, dataset.labels, dataset.num_images) == ("folders", ("a", "b"), 4)
    assert names_of(dataset) == ["a/y.cr2", "a/deep/er/x.webp", "b/1.png", "b/2.JPG"]
    assert dataset.files == tuple(tmp_path / name for name in names_of(dataset))
    assert dataset.targets_N.tolist() == [0, 0, 1, 1]
    assert dataset.parts_N is None
    assert dataset.num_ignored == 3
    assert dataset.findings == (
        Finding("info", "hidden_entries", "2 hidden files and folders were ignored"),
        Finding("info", "other_entries", "1 files without an image's extension were ignored"),
    )


def test_what_is_passed_over_is_counted_and_told(tmp_path):
    touch(tmp_path, "a/1.png", "b/1.png", "loose.png", "__MACOSX/a/._1.png", "b/@eaDir/1.png", "elsewhere/2.png")
    (tmp_path / "elsewhere").rename(tmp_path.parent / "elsewhere")
    (tmp_path / "a" / "link").symlink_to(tmp_path.parent / "elsewhere")

    dataset = open_dataset(tmp_path)

    assert names_of(dataset) == ["a/1.png", "b/1.png"]
    assert [(finding.severity, finding.code) for finding in dataset.findings] == [
        ("info", "junk_entries"),
        ("warning", "links_entries"),
        ("warning", "loose_entries"),
    ]
    assert dataset.num_ignored == 4


@pytest.mark.parametrize("validation", ["val", "valid", "Validation"])
def test_part_folders_keep_their_parts(tmp_path, validation):
    touch(tmp_path, "train/a/1.png", "train/a/2.png", "train/b/1.png", f"{validation}/a/3.png", "test/b/4.png")

    dataset = open_dataset(tmp_path)

    assert (dataset.kind, dataset.labels) == ("part_folders", ("a", "b"))
    found = zip(names_of(dataset), dataset.targets_N.tolist(), dataset.parts_N.tolist(), strict=True)
    assert list(found) == [
        ("train/a/1.png", 0, TRAIN),
        ("train/a/2.png", 0, TRAIN),
        ("train/b/1.png", 1, TRAIN),
        (f"{validation}/a/3.png", 0, VALIDATION),
        ("test/b/4.png", 1, TEST),
    ]


def test_a_class_that_only_training_has_is_told(tmp_path):
    dataset = open_dataset(touch(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/2.png", "test/b/readme.txt"))

    assert Finding("warning", "class_not_in_part", "class b has no test images: nothing is measured for it") in (
        dataset.findings
    )


def test_a_class_that_training_lacks_is_named(tmp_path):
    touch(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/2.png", "val/zebra/2.png")

    with pytest.raises(DataError, match=r"the validation part holds class zebra, which the train part lacks"):
        open_dataset(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    dataset = open_dataset(touch(tmp_path, "train/1.png", "bus/1.png"))

    assert (dataset.kind, dataset.labels) == ("folders", ("bus", "train"))


def test_data_that_cannot_be_used_say_what_was_found(tmp_path):
    touch(tmp_path, "file", "photos.zip", "dcim/DCIM/7/b.jpg", "flat/b.jpg", "flat/a, 1.heic")
    (tmp_path / "none").mkdir()
    (tmp_path / "one" / "cat").mkdir(parents=True)
    touch(tmp_path / "wrapped", "photos/cat/1.png", "photos/dog/1.png")
    make_class_folders(tmp_path / "gap", 1)
    touch(tmp_path / "gap", "empty/readme.txt")
    touch(tmp_path / "no_train", "test/a/1.png", "val/a/1.png")
    touch(tmp_path / "flat_test", "train/a/1.png", "train/b/1.png", "test/1.png")
    touch(tmp_path / "mixed", "train/a/1.png", "test/a/1.png", "cats/1.png")
    touch(tmp_path / "twice", "train/a/1.png", "val/a/1.png", "valid/a/1.png")
    touch(tmp_path / "gap_in_train", "train/a/1.png", "train/b/x.txt", "test/a/1.png")

    for name, message in (
        ("absent", "absent is missing; expected a folder per class"),
        ("file", "file is not a folder"),
        ("none", "holds no class folders"),
        ("one", r"one class only \(cat\); training needs two or more; expected a folder per class"),
        ("dcim", r"one class only \(DCIM\); .* if these images .*, such as dcim/cat/b.jpg, or .* as DCIM/7/b.jpg,cat "),
        (
            "flat",
            r"flat holds 2 images without labels; put each image into a folder of its class, such as "
            r"flat/cat/a, 1.heic, or write a list .*/flat/labels.csv whose first line is path,label, with a line "
            r'such as "a, 1.heic",cat for each image, and give that$',
        ),
        ("photos.zip", r"photos.zip is an archive, which is not read; unpack it, and give the folder"),
        ("wrapped", r"one class only \(photos\); if its folders cat, dog are it, give .*wrapped/photos"),
        ("gap", r"gap/empty holds no images \(1 other"),
        ("no_train", "parts, not classes, and no train folder"),
        ("flat_test", r"test holds no images in class folders"),
        ("mixed", "train, which are parts, and cats, which is not"),
        ("twice", "two folders of the same part"),
        ("gap_in_train", r"train/b holds no images \(1 other"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            open_dataset(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_archives_among_the_images_are_counted_once(tmp_path):
    archives = ("more.zip", "cat/more.tar.gz", "dog/MORE.7Z", "dog/deep/more.rar")
    touch(tmp_path, "cat/1.png", "dog/1.png", "dog/folder.zip/2.png", "dog/notes.gz", *archives)

    dataset = open_dataset(tmp_path)

    assert dataset.num_images == 3
    assert [(finding.severity, finding.message) for finding in dataset.findings] == [
        ("warning", "4 archives were not read; unpack them if they hold images"),
        ("info", "1 files without an image's extension were ignored"),
    ]


def test_one_image_of_every_class_is_refused_for_training_unless_there_is_a_validation_part(tmp_path):
    touch(tmp_path / "one", "a/1.png", "b/1.png")
    touch(tmp_path / "tested", "train/a/1.png", "train/b/1.png", "test/a/2.png", "test/a/3.png")
    touch(tmp_path / "validated", "train/a/1.png", "train/b/1.png", "val/a/2.png")
    touch(tmp_path / "two", "a/1.png", "b/1.png", "b/2.png")

    for name in ("one", "tested"):
        with pytest.raises(DataError, match=rf"every class of .*/{name} has only one image: .*; add images"):
            check_learnable(open_dataset(tmp_path / name))
    for name in ("validated", "two"):
        check_learnable(open_dataset(tmp_path / name))


def test_a_file_name_that_is_not_utf8_is_named_as_text(tmp_path):
    touch(tmp_path, "a/caf\udce9.png", "b/1.png", "b/x\\x41.png")

    dataset = open_dataset(tmp_path)

    assert names_of(dataset) == ["a/caf\\xe9.png", "b/1.png", "b/x\\x5cx41.png"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("caf\udce9", r"class folder 'caf\\\\xe9' is not UTF-8; rename it"),
        ("red\x1b[31m", r"the label 'red\\x1b\[31m' holds U\+001B, which cannot be seen; rename it"),
        ("\u202egod", r"holds U\+202E, which cannot be seen"),
        (" ", r"the name of the class folder ' ' is nothing but spaces; rename it"),
    ],
)
def test_class_names_that_cannot_be_shown_are_refused(tmp_path, name, message):
    touch(tmp_path, "a/1.png", f"{name}/1.png")

    with pytest.raises(DataError, match=message) as caught:
        open_dataset(tmp_path)
    assert str(caught.value).isprintable()


def test_folders_whose_names_are_equal_by_the_rule_are_one_class_and_that_is_told(tmp_path):
    nfc, nfd = "\u00e9p\u00e9e", "e\u0301pe\u0301e"
    touch(tmp_path / "classes", f"{nfc}/1.png", f"{nfd}/2.png", f"{nfd} /3.png", "b/4.png")
    touch(tmp_path / "parts", f"train/{nfd}/1.png", "train/b/2.png", f"val/{nfc}/3.png", "val/b /4.png")

    classes, parts = open_dataset(tmp_path / "classes"), open_dataset(tmp_path / "parts")

    assert (classes.labels, sorted(classes.targets_N.tolist())) == (("b", nfc), [0, 1, 1, 1])
    assert (parts.labels, parts.targets_N.tolist()) == (("b", nfc), [0, 1, 0, 1])
    assert classes.findings == (
        Finding(
            "warning",
            "same_class",
            r"the folders '\xe9p\xe9e' and 'e\u0301pe\u0301e ' and 'e\u0301pe\u0301e' are one class, "
            "as their names differ only in their Unicode form or in spaces at their ends",
        ),
    )
    assert [finding.code for finding in parts.findings] == ["same_class", "same_class"]


def test_a_folder_with_a_space_at_the_end_is_the_class_without_it(tmp_path):
    dataset = open_dataset(touch(tmp_path, "cat /1.png", "dog/1.png"))

    assert dataset.labels == ("cat", "dog")
    assert names_of(dataset) == ["cat /1.png", "dog/1.png"]
    assert dataset.findings[0].message == (
        "the folder 'cat ' is class 'cat', in Unicode's form NFC and without spaces at its ends"
    )


def test_classes_that_differ_by_case_only_are_told(tmp_path):
    dataset = open_dataset(touch(tmp_path, "Cat/1.png", "cat/1.png", "dog/1.png"))

    assert dataset.labels == ("Cat", "cat", "dog")
    assert dataset.findings == (
        Finding(
            "warning",
            "names_differ_by_case",
            "the names of classes Cat and cat differ in upper and lower case only; rename one of them if they are one "
            "class",
        ),
    )
