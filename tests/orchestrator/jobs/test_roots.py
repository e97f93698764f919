"""Which paths programs on the network may name."""

from pathlib import Path

import pytest

from orchestrator.contract.errors import OutsideRootsError
from orchestrator.contract.settings import Settings
from orchestrator.jobs.prepare import prepare
from orchestrator.jobs.roots import Roots
from orchestrator.jobs.specs import ClassifySpec, EvaluateSpec, TrainSpec, check_paths_of
from orchestrator.jobs.walk import SourceOptions
from tests.support.published_models import make_pngs, publish_model


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A root, with a link that leads out of it; beside it lies a secret."""
    root = tmp_path / "data"
    for label in "01":
        make_pngs(root / "labelled" / label, 2)
        make_pngs(tmp_path / "secret" / label, 2)
    (root / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "data-of-others").mkdir()
    return root


@pytest.fixture
def roots(data: Path) -> Roots:
    return Roots.of(data)


def outside(tmp_path: Path) -> list[str]:
    root = tmp_path / "data"
    return [
        "/etc/passwd", "/", "relative", "-", "", f"{tmp_path}/secret", f"{tmp_path}/data-of-others",
        f"{root}/../secret", f"{root}/out", f"{root}/out/0", f"{root}/out/new", f"{root}/a\0b", "\\\\server\\share",
        "file:///etc", "~",
    ]  # fmt: skip


def test_what_is_below_a_root_may_be_named(roots: Roots, data: Path):
    for path in (data, data / "labelled", data / "labelled" / "..x", data / "new" / "file.csv", f"{data}//labelled/"):
        roots.check("output", path)
        roots.check_source(str(path))


def test_what_is_below_none_is_refused_however_it_is_written(roots: Roots, tmp_path: Path):
    for path in outside(tmp_path):
        with pytest.raises(OutsideRootsError):
            roots.check("data", path)
        with pytest.raises(OutsideRootsError):
            roots.check_source(path)


@pytest.mark.parametrize(
    "pattern", ["/*", "/etc/*.png", "{tmp}/*/0/*", "{tmp}/data/../secret/*", "{tmp}/data/out/*", "*"]
)
def test_a_glob_that_begins_outside_is_refused(roots: Roots, tmp_path: Path, pattern: str):
    with pytest.raises(OutsideRootsError):
        roots.check_source(pattern.format(tmp=tmp_path))


def test_a_glob_below_a_root_may_be_named(roots: Roots, data: Path):
    roots.check_source(f"{data}/**/*.png")
    roots.check_source(f"{data}/labelled/[01]/*")


def test_without_roots_no_path_may_be_named(data: Path):
    with pytest.raises(OutsideRootsError, match="start the gateway with --root"):
        Roots.of().check("source", data)


def test_every_path_of_every_kind_of_job_is_looked_at(roots: Roots, data: Path, tmp_path: Path):
    inside, secret = data / "labelled", tmp_path / "secret"
    source, reading = str(inside), SourceOptions(root=secret)
    for spec in (
        ClassifySpec(str(secret), "m", roots=roots),
        ClassifySpec(source, "m", output=secret / "out.csv", roots=roots),
        ClassifySpec(source, "m", reading=reading, roots=roots),
        ClassifySpec(source, "m", since=str(secret / "out.csv"), roots=roots),
        ClassifySpec(source, "m", since="out.csv", roots=roots),
        TrainSpec(secret, "m", {}, roots=roots),
        TrainSpec(inside, "m", {}, joined=(secret,), roots=roots),
        TrainSpec(inside, "m", {"weights": str(secret / "w.pt")}, roots=roots),
        TrainSpec(inside, "m", {"weights": "../w.pt"}, roots=roots),
        EvaluateSpec("m", secret, roots=roots),
        EvaluateSpec("m", inside, output=secret / "new", roots=roots),
    ):
        with pytest.raises(OutsideRootsError):
            check_paths_of(spec)
    check_paths_of(TrainSpec(inside, "m", {"weights": "imagenet"}, roots=roots))
    check_paths_of(ClassifySpec(source, "m", since="c261129-143355-7f3a2b", roots=roots))
    check_paths_of(ClassifySpec(source, "m", since=str(data / "out.csv"), roots=roots))
    check_paths_of(ClassifySpec(str(secret), "m"))  # the command line's


def test_a_manifest_does_not_name_a_root_of_its_own(settings: Settings, roots: Roots, data: Path, tmp_path: Path):
    publish_model(settings.models, "digits")
    manifest = data / "out.csv"
    manifest.write_text(
        "path,status,decision,label,score,top_k,error_code,error\n00000/00000000.png,ok,,1,1.0,1:1.0,,\n"
    )
    (data / "out.csv.summary.json").write_text(f'{{"root": "{tmp_path}/secret/0"}}')

    with pytest.raises(OutsideRootsError, match="the folder of the source's paths"):
        prepare(settings, ClassifySpec(str(manifest), "digits", roots=roots))


@pytest.mark.parametrize("entry", ["{tmp}/secret/0/00000/00000000.png", "../secret/0/00000/00000000.png"])
def test_a_list_of_labels_names_no_image_outside(
    settings: Settings, roots: Roots, data: Path, tmp_path: Path, entry: str
):
    publish_model(settings.models, "digits")
    rows = [f"labelled/{label}/00000/0000000{n}.png,{label}" for label in "01" for n in "01"]
    labels = data / "labels.csv"
    labels.write_text("\n".join(["path,label", *rows]))
    prepare(settings, TrainSpec(labels, "new", {"architecture": "cnn"}, roots=roots))
    prepare(settings, EvaluateSpec("digits", labels, roots=roots))

    labels.write_text("\n".join(["path,label", *rows, entry.format(tmp=tmp_path) + ",0"]))

    for spec in (
        TrainSpec(labels, "new", {"architecture": "cnn"}, roots=roots),
        EvaluateSpec("digits", labels, roots=roots),
    ):
        with pytest.raises(OutsideRootsError, match="image"):
            prepare(settings, spec)
