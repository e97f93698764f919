"""Finding and verifying manifests: every kind of difference is named."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from modeling.names import path_to_text
from modeling.registry.card import CARD_FILE, WEIGHTS_FILE
from modeling.registry.store import ModelStore, ModelVersion
from orchestrator.cli import main
from orchestrator.cli.classify import print_decisions
from orchestrator.contract.errors import IntegrityError, NotFoundError
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome
from orchestrator.contract.jobs.requests import ModelPin
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.contract.jobs.sidecar import sidecar_path
from orchestrator.contract.settings import Settings, get_settings
from orchestrator.jobs.results import find_published
from orchestrator.jobs.verification import Verification, verify
from tests.support.fakes import FakeFinalizeLease, make_job, write_fake_parts
from tests.support.published_models import publish_model
from workers.finalize.publish import publish_manifest

NAMES = [f"{number}.jpg" for number in range(9)] + ["line\nend.jpg", os.fsdecode(b"caf\xe9.jpg"), "=1.jpg"]
MODEL_CHECKS = ["model digest", "model weights"]


@dataclass
class Publication:
    """A published manifest that tests may damage."""

    settings: Settings
    folder: JobFolder
    manifest: Path
    model: ModelVersion

    def verify(self) -> Verification:
        return verify(self.settings, find_published(self.settings, str(self.manifest)))

    def differing(self) -> set[str]:
        """The names of the differences."""
        return {difference.partition(":")[0] for difference in self.verify().differences}

    def edit_lines(self, edit: Callable[[list[bytes]], object]) -> None:
        lines = self.manifest.read_bytes().splitlines(keepends=True)
        edit(lines)
        self.manifest.write_bytes(b"".join(lines))

    def edit_summary(self, edit: Callable[[dict], object]) -> None:
        path = summary_path(self.manifest)
        summary = json.loads(path.read_bytes())
        edit(summary)
        path.write_text(json.dumps(summary))


@pytest.fixture
def publish(settings: Settings, tmp_path: Path) -> Callable[..., Publication]:
    """Publishes the manifest of a job of NAMES under a name in its own folder."""
    model = publish_model(settings.models, "digits")
    card = ModelStore(settings.models).card(model.ref)
    pin = ModelPin(name="digits", number=1, digest=model.digest, preprocessing_digest=card.preprocessing.digest)
    (tmp_path / "out").mkdir()

    def publish(name: str = "out.csv", *, calibrated: bool = False, **changes: object) -> Publication:
        output = tmp_path / "out" / name
        row_format = output.suffix.removeprefix(".")
        folder = make_job(
            settings, NAMES, root=tmp_path / "in", output=output, output_format=row_format, model=pin, **changes
        )
        write_fake_parts(folder, calibrated=calibrated)
        publish_manifest(folder, folder.request(), None, FakeFinalizeLease())
        folder.write_outcome(Outcome(state="partial", ended=datetime.now(UTC), result=str(output)))
        return Publication(settings, folder, output, model)

    return publish


@pytest.mark.parametrize("name", ["out.csv", "out.json", "out.jsonl"])
def test_an_unchanged_manifest_is_verified(publish, name):
    proof = publish(name).verify()

    assert (proof.num_rows, proof.differences, proof.unchecked) == (12, [], [])
    assert proof.checked == [
        "manifest bytes", "manifest sha256", "rows", "rows by status", "rows that failed", "rows by label",
        "rows by error code", "rows by decision", "paths in listed order", "sidecar bytes", "sidecar sha256",
        "paths in the sidecar", "images by remark", "listed images", "listing sha256",
        *MODEL_CHECKS,
        *(["model digest in the manifest"] if name == "out.json" else []),
    ]  # fmt: skip


def test_a_sidecar_that_was_changed_differs(publish):
    publication = publish()
    sidecar = sidecar_path(publication.manifest)
    sidecar.write_bytes(sidecar.read_bytes().replace(b'"0.jpg"', b'"x.jpg"'))

    assert publication.differing() == {"sidecar sha256", "paths in the sidecar"}


def test_a_sidecar_that_is_not_there_is_not_checked(publish):
    publication = publish()
    sidecar_path(publication.manifest).unlink()

    proof = publication.verify()

    assert proof.differences == []
    assert proof.unchecked == [f"the sidecar ('{publication.manifest}.sources' is not there)"]


def test_a_removed_row_differs_in_number_counts_and_paths(publish):
    publication = publish("out.jsonl")

    publication.edit_lines(lambda lines: lines.pop(3))

    assert publication.differing() == {
        "manifest bytes", "manifest sha256", "rows", "rows by status", "rows by label", "paths in listed order",
    }  # fmt: skip
    assert "rows: the summary says 12, found 11" in publication.verify().differences


def test_an_added_row_differs_in_number_counts_and_paths(publish):
    publication = publish("out.jsonl")

    publication.edit_lines(lambda lines: lines.append(lines[2]))

    assert publication.differing() == {
        "manifest bytes", "manifest sha256", "rows", "rows by status", "rows that failed", "rows by error code",
        "paths in listed order",
    }  # fmt: skip


def test_two_swapped_rows_differ_in_the_order_of_paths(publish):
    publication = publish("out.jsonl")

    publication.edit_lines(lambda lines: lines.insert(0, lines.pop(1)))

    assert publication.differing() == {"manifest sha256", "paths in listed order"}


def test_two_paths_that_changed_places_differ_though_every_count_agrees(publish):
    publication = publish("out.jsonl")

    def swap_names(lines: list[bytes]) -> None:
        lines[0], lines[1] = lines[0].replace(b"0.jpg", b"1.jpg"), lines[1].replace(b"1.jpg", b"0.jpg")

    publication.edit_lines(swap_names)

    assert publication.differing() == {"manifest sha256", "paths in listed order"}


@pytest.mark.parametrize(
    ("old", "new", "differing"),
    [
        (b'"label": "dark"', b'"label": "soft"', {"rows by label"}),
        (b'"missing"', b'"MISSING"', {"rows by error code"}),
        (b'"score": 0.', b'"score": 0.0', set()),
        (b"0.jpg", b"9.jpg", {"paths in listed order"}),
        (b"there is no such file", b"there is some such xxx", set()),
    ],
)
def test_a_changed_cell_differs_at_least_in_the_checksum(publish, old, new, differing):
    publication = publish("out.jsonl")

    def change(lines: list[bytes]) -> None:
        at = next(index for index, line in enumerate(lines) if old in line)
        lines[at] = lines[at].replace(old, new)

    publication.edit_lines(change)

    assert publication.differing() - {"manifest bytes"} == differing | {"manifest sha256"}


def test_a_manifest_that_ends_early_is_no_traceback(publish):
    for name in ("out.csv", "out.json", "out.jsonl"):
        publication = publish(name)

        publication.manifest.write_bytes(publication.manifest.read_bytes()[:-30])

        assert {"manifest bytes", "manifest sha256", "rows"} <= publication.differing()


def test_garbage_in_place_of_a_manifest_is_no_traceback(publish):
    for name in ("out.csv", "out.json", "out.jsonl"):
        publication = publish(name)

        publication.manifest.write_bytes(os.urandom(500))

        assert {"manifest sha256", "rows"} <= publication.differing()


@pytest.mark.parametrize(
    ("part", "name", "differing"),
    [
        ("counts", "num_images", "rows"),
        ("counts", "num_failed", "rows that failed"),
        ("manifest", "bytes", "manifest bytes"),
        ("listing", "num_images", "listed images"),
    ],
)
def test_a_changed_count_in_the_summary_differs(publish, part, name, differing):
    publication = publish()

    publication.edit_summary(lambda summary: summary[part].update({name: summary[part][name] + 1}))

    assert publication.differing() == {differing}


@pytest.mark.parametrize(
    ("part", "name"), [("status", "ok"), ("status", "error"), ("labels", "dark"), ("error_codes", "missing")]
)
def test_a_changed_count_by_status_label_or_error_code_differs(publish, part, name):
    publication = publish()

    publication.edit_summary(lambda summary: summary["counts"][part].update({name: 0}))

    assert len(publication.differing()) == 1


def test_a_changed_decision_or_count_of_it_differs(publish):
    publication = publish("out.jsonl", calibrated=True)
    assert publication.differing() == set()

    publication.edit_summary(lambda summary: summary["counts"]["decisions"].update(reject=0))
    assert publication.differing() == {"rows by decision"}

    publication.edit_lines(lambda lines: lines.__setitem__(2, lines[2].replace(b"reject", b"accept")))
    assert publication.differing() == {"manifest sha256", "rows by decision"}


def test_a_summary_of_an_earlier_release_counts_no_decisions(publish):
    publication = publish()

    publication.edit_summary(lambda summary: summary["counts"].pop("decisions"))

    assert publication.differing() == set()
    assert "rows by decision" not in publication.verify().checked


def test_a_changed_listing_differs(publish):
    publication = publish()
    listing = publication.folder.path / "listing"

    listing.write_bytes(listing.read_bytes().replace(b"1.jpg", b"x.jpg"))

    assert publication.differing() == {"listing sha256"}


@pytest.mark.parametrize("name", ["listing", "listing.json"])
def test_a_listing_that_is_gone_or_damaged_is_a_difference(publish, name):
    publication = publish()

    (publication.folder.path / name).write_text("rubbish")
    damaged = publication.differing()
    (publication.folder.path / name).unlink()
    gone = publication.differing()

    assert {item.partition(" ")[0] for item in (damaged | gone)} <= {"listing", "listed"}
    assert damaged
    assert gone


def test_without_the_jobs_folder_the_listing_is_said_to_be_unchecked(publish):
    publication = publish()

    shutil.rmtree(publication.folder.path)

    proof = publication.verify()
    assert proof.differences == []
    assert proof.unchecked == ["the job's listing (its folder is not here)"]


def test_a_model_that_is_not_in_the_store_is_said_to_be_unchecked(publish):
    publication = publish()

    shutil.rmtree(publication.model.path)

    proof = publication.verify()
    assert proof.differences == []
    assert proof.unchecked == ["the model digits@1 (it is not in this store)"]


def test_a_model_replaced_by_another_under_the_same_name_differs(publish, settings, tmp_path):
    publication = publish()
    other = publish_model(tmp_path / "elsewhere" / "models", "digits", seed=1)

    shutil.rmtree(publication.model.path)
    shutil.copytree(other.path, publication.model.path)

    assert publication.differing() == {"model digest"}


def test_a_card_that_was_changed_in_place_differs(publish):
    publication = publish()
    card = publication.model.path / CARD_FILE

    card.write_bytes(card.read_bytes().replace(b'"0"', b'"zero"'))

    assert publication.differing() == {"model digest"}


def test_weights_that_are_not_those_of_the_card_differ(publish):
    publication = publish()
    weights = publication.model.path / WEIGHTS_FILE

    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")

    assert publication.differing() == {"model weights"}


def test_another_digest_in_the_head_of_a_json_manifest_differs(publish):
    publication = publish("out.json")

    publication.edit_lines(lambda lines: lines.__setitem__(slice(None), _with_other_digest(lines)))

    assert publication.differing() == {"manifest sha256", "model digest in the manifest"}


def _with_other_digest(lines: list[bytes]) -> list[bytes]:
    at = next(index for index, line in enumerate(lines) if b"model_digest" in line)
    return [*lines[:at], b'  "model_digest": "' + b"0" * 64 + b'",\n', *lines[at + 1 :]]


def test_another_digest_in_the_summary_differs(publish):
    publication = publish("out.json")

    publication.edit_summary(lambda summary: summary["model"].update(digest="0" * 64))

    assert publication.differing() == {"model digest", "model digest in the manifest"}


# Finding


def test_a_job_id_finds_its_manifest(publish, settings):
    publication = publish()

    found = find_published(settings, publication.folder.job)

    assert (found.manifest, found.summary["job"]) == (publication.manifest, publication.folder.job)
    assert [row.path for row in found.rows()] == NAMES


def test_a_manifest_replaced_by_a_later_jobs_is_not_taken_for_the_first_ones(publish, settings):
    first = publish()
    second = publish(overwrite=True)

    with pytest.raises(
        NotFoundError, match=f"manifest of job {first.folder.job} was replaced by .*{second.folder.job}"
    ):
        find_published(settings, first.folder.job)
    assert find_published(settings, second.folder.job).summary["job"] == second.folder.job


def test_a_missing_summary_and_a_missing_manifest_have_different_errors(publish, settings):
    publication = publish()

    summary_path(publication.manifest).unlink()

    with pytest.raises(NotFoundError, match=r"the summary '.*out.csv.summary.json' is missing"):
        publication.verify()
    with pytest.raises(NotFoundError, match=r"there is no manifest 'nowhere\.csv'"):
        find_published(settings, "nowhere.csv")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"version": 2}', "is not a summary of version 1"),
        ("[]", "is not a summary of version 1"),
        ("{", "not JSON"),
        ('{"version": 1}', "is damaged: job: the key is missing"),
        (
            '{"version": 1, "job": "x", "manifest": {"format": "csv"}}',
            r"is damaged: manifest\.bytes: the key is missing",
        ),
        ('{"version": 1, "job": "x", "manifest": []}', "is damaged: manifest: Input should be an object"),
    ],
)
def test_a_summary_of_another_version_or_damaged_is_refused(publish, text, told):
    publication = publish()

    summary_path(publication.manifest).write_text(text)

    with pytest.raises(IntegrityError, match=told):
        publication.verify()


def test_an_unknown_format_is_refused(publish):
    publication = publish()

    publication.edit_summary(lambda summary: summary["manifest"].update(format="xls"))

    with pytest.raises(IntegrityError, match=r"manifest\.format: Input should be 'csv', 'json' or 'jsonl', not 'xls'"):
        publication.verify()


def test_the_error_for_a_job_without_a_manifest_has_its_state(settings, tmp_path):
    running = make_job(settings, NAMES, root=tmp_path, output=tmp_path / "running.csv")
    cancelled = make_job(settings, NAMES, root=tmp_path, output=tmp_path / "cancelled.csv")
    cancelled.write_outcome(Outcome(state="cancelled", ended=datetime.now(UTC)))

    with pytest.raises(NotFoundError, match="has published no manifest: it is not at its end"):
        find_published(settings, running.job)
    with pytest.raises(NotFoundError, match="has published no manifest: it is cancelled"):
        find_published(settings, cancelled.job)
    with pytest.raises(NotFoundError, match="there is no job c000000-000000-000000"):
        find_published(settings, "c000000-000000-000000")


# Showing


@pytest.fixture
def show(monkeypatch):
    """Runs `results show` on a publication, and returns what it printed."""

    def show(publication: Publication, *options: str) -> Result:
        monkeypatch.setenv("PIGEONHOLE_HOME", str(publication.settings.home))
        get_settings.cache_clear()
        done = CliRunner().invoke(main, ["results", "show", publication.folder.job, *options])
        assert done.exit_code == 0, done.stderr
        return done

    return show


def test_rows_are_shown_by_decision(publish, show):
    publication = publish("out.jsonl", calibrated=True)
    rows = list(find_published(publication.settings, str(publication.manifest)).rows())

    for decision in ("accept", "review", "reject"):
        shown = json.loads(show(publication, "--json", "--limit", "0", "--where", f"decision={decision}").stdout)
        wanted = [path_to_text(row.path) for row in rows if row.prediction.decision == decision]
        assert [row["path"] for row in shown["rows"]] == wanted
        assert {row["decision"] for row in shown["rows"]} == {decision}
        assert shown["summary"]["counts"]["decisions"][decision] == len(wanted) > 0


def test_a_filter_that_no_row_fits_says_so(publish, show):
    shown = show(publish(), "--where", "label=cow")

    assert shown.stderr.endswith("\nno row fits\n")
    assert "PATH" in shown.stdout


def test_the_share_to_review_is_shown_for_a_calibrated_model(publish, show):
    told = show(publish("decided.csv", calibrated=True)).stderr
    not_told = show(publish("plain.csv")).stderr

    assert "2 accepted (16.7%), 7 to review (58.3%), 3 rejected (25.0%)" in told
    assert "to review" not in not_told


def test_a_classify_job_ends_with_the_number_of_images_to_review(publish, capsys):
    publication = publish("decided.csv", calibrated=True)

    print_decisions(publication.folder)
    print_decisions(publish("plain.csv").folder)

    assert capsys.readouterr().err.splitlines() == [
        "2 accepted (16.7%), 7 to review (58.3%), 3 rejected (25.0%)",
        f"`pigeonhole results show {publication.folder.job} --where decision=review` shows them",
    ]


def test_a_classify_job_ends_with_what_was_remarked_about_images(publish, show, capsys):
    publication = publish("plain.csv")
    for path in (publication.folder.summary, publication.manifest.with_name("plain.csv.summary.json")):
        summary = json.loads(path.read_text())
        assert summary["counts"]["remarks"] == {}
        summary["counts"]["remarks"] = {"frames": 1234, "uncertain_depth": 1}
        path.write_text(json.dumps(summary))

    print_decisions(publication.folder)

    told = capsys.readouterr().err.splitlines()
    assert told[0] == "1,234 images have several frames or pages; only the first is used"
    assert told[1].startswith("1 image holds values of more than 8 bits and does not state which value is white")
    assert len(told) == 2
    assert all(line in show(publication).stderr for line in told)


def test_rows_are_shown_by_label_score_and_number(publish, monkeypatch):
    publication = publish()
    monkeypatch.setenv("PIGEONHOLE_HOME", str(publication.settings.home))

    def shown(*options: str) -> list[str]:
        get_settings.cache_clear()
        done = CliRunner().invoke(main, ["results", "show", publication.folder.job, "--json", *options])
        assert done.exit_code == 0, done.stderr
        return [row["path"] for row in json.loads(done.stdout)["rows"]]

    rows = list(find_published(publication.settings, str(publication.manifest)).rows())
    good = [row for row in rows if row.prediction.ok]
    middle = sorted(row.prediction.scores[0] for row in good)[len(good) // 2]
    assert shown("--limit", "0") == [path_to_text(row.path) for row in rows]
    assert shown("--limit", "2") == NAMES[:2]
    assert shown("--limit", "0", "--where", "label=dark") == [path_to_text(row.path) for row in good]
    assert shown("--limit", "0", "--where", "label=cat") == []
    below = [path_to_text(row.path) for row in good if row.prediction.scores[0] < middle]
    assert shown("--limit", "0", "--where", f"score<{middle:.6f}") == below
    assert 0 < len(below) < len(good)


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"path":"a","status":"ok","decision":null,"top_k":[],"error_code":null,"error":null}',
        b'{"path":"a","status":"ok","decision":null,"top_k":[{"label":3,"score":0.5}],"error_code":null,"error":null}',
        b'{"path":"a","status":"ok","decision":null,"top_k":[{"label":[[]],"score":1}],"error_code":null,"error":null}',
        b'{"path":"a","status":"ok","decision":null,"top_k":[{"label":"b","score":"x"}],"error_code":null,"error":null}',
        b'{"path":"a","status":"ok","decision":null,"top_k":[{"label":"b","score":NaN}],"error_code":null,"error":null}',
        b'{"path":"a","status":"ok","decision":null,"top_k":[{"label":"b","score":%s}],"error_code":null,"error":null}'
        % (b"9" * 400),
        b'{"path":"a","status":"ok","decision":null,"top_k":[{"label":"b","score":-1}],"error_code":null,"error":null}',
        b'{"path":"a","status":"error","decision":null,"top_k":[],"error_code":3,"error":{}}',
    ],
)
@pytest.mark.parametrize("command", [["show"], ["show", "--json"], ["errors"], ["verify"]])
def test_a_row_that_no_job_writes_is_one_line(publish, line, command):
    publication = publish("out.jsonl")
    publication.edit_lines(lambda lines: lines.insert(0, line + b"\n"))

    done = CliRunner().invoke(main, ["results", command[0], str(publication.manifest), *command[1:]])

    assert (done.exit_code, type(done.exception)) == (1, SystemExit)
    assert f"{publication.manifest}" in done.stderr
    assert "row" in done.stderr


@pytest.mark.parametrize("levels", [150, 900, 100_000])
def test_a_deep_summary_is_one_line_or_no_matter(publish, levels):
    publication = publish("out.jsonl")
    path = summary_path(publication.manifest)
    path.write_bytes(
        path.read_bytes().rstrip().removesuffix(b"}") + b', "more": ' + b"[" * levels + b"]" * levels + b"}"
    )

    done = CliRunner().invoke(main, ["results", "show", str(publication.manifest)])

    assert done.exit_code in (0, 1)
    assert done.exit_code == 0 or type(done.exception) is SystemExit
    assert done.exit_code == 0 or done.stderr.count("\n") == 1


def test_odd_decisions_of_a_summary_are_shown_as_they_are(publish):
    publication = publish("out.jsonl", calibrated=True)
    publication.edit_summary(lambda summary: summary["counts"].update(decisions={"perhaps": 1}, num_images=0))

    done = CliRunner().invoke(main, ["results", "show", str(publication.manifest)])

    assert done.exit_code == 0
    assert "1 perhaps" in done.stderr


def test_of_many_labels_the_most_frequent_are_shown(publish):
    publication = publish("out.jsonl")
    publication.edit_summary(lambda summary: summary["counts"].update(labels={f"label {n}": n for n in range(5_000)}))

    shown = CliRunner().invoke(main, ["results", "show", str(publication.manifest)]).stdout.splitlines()

    assert shown[1].split() == ["label", "4999", "4999"]
    assert shown[51] == "... 4,950 more"
