import json

import attrs
import pytest

from reweight_core import UserError, as_values, configure, locked
from reweight_experiments.cells import Cell, PlannedRun
from reweight_experiments.folder import arguments_for, make_folder, unfinished


@pytest.fixture
def run(plugins, tmp_path):
    """A run that is not made yet."""
    values = {"method": "stir", "data": "tail"}
    config = configure(**values, epochs=2, out=tmp_path / "stir-tail" / "seed-0")
    return PlannedRun(Cell("stir-tail", {}, values), config)


def write(run, *names, **changed):
    run.folder.mkdir(parents=True, exist_ok=True)
    options = as_values(run.config) | changed
    for name in names:
        (run.folder / name).write_text(json.dumps({"options": options} if name == "config.json" else {}))


def test_a_run_is_finished_when_its_result_is_written(run):
    assert unfinished([run]) == [run]
    write(run, "config.json", "metrics.jsonl", "summary.json.partial")
    assert unfinished([run]) == [run]
    write(run, "summary.json")
    assert unfinished([run]) == []


def test_a_finished_run_with_other_options_is_refused(run):
    write(run, "config.json", "summary.json", epochs=3)
    with pytest.raises(UserError, match="seed-0: is finished, with epochs 3 where 2 is asked for; give another --out"):
        unfinished([run])


def test_a_finished_run_may_have_been_moved(run):
    write(run, "config.json", "summary.json", out="/elsewhere")
    assert unfinished([run]) == []


def test_an_unfinished_run_may_have_had_other_options(run):
    write(run, "config.json", epochs=3)
    assert unfinished([run]) == [run]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"options": 3}'])
def test_a_finished_run_with_a_broken_config_is_refused(run, content):
    write(run, "summary.json")
    (run.folder / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        unfinished([run])


def test_an_unfinished_run_may_have_files_of_observers(run):
    write(run, "config.json")
    config = run.folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"format": 1, "versions": {}}))
    (run.folder / "curves.csv").write_text("epoch")
    assert unfinished([run]) == [run]


def test_what_is_no_run_is_never_removed(run):
    run.folder.mkdir(parents=True)
    (run.folder / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is in the way and not a run"):
        unfinished([run])
    file = attrs.evolve(run.config, out=run.folder / "thesis.tex")
    with pytest.raises(UserError, match="is in the way and not a run"):
        unfinished([PlannedRun(run.cell, file)])
    assert (run.folder / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    "option",
    [{"device": "cpu"}, {"workers": 1}, {"graph": "off"}, {"checkpoint_every": "1epochs"}, {"shelf": "/elsewhere"}],
)
def test_options_that_change_no_result_may_differ(run, option):
    write(run, "config.json", "summary.json", **option)
    assert unfinished([run]) == []


@pytest.mark.parametrize("option", [{"seed": 1}, {"cut": 2}, {"speed": 2.0}, {"lr": 0.2}, {"unknown": 1}])
def test_seed_and_options_that_change_a_result_may_not(run, option):
    write(run, "config.json", "summary.json", **option)
    ((name, value),) = option.items()
    with pytest.raises(UserError, match=f"is finished, with {name} {value} where "):
        unfinished([run])


def test_a_note_in_a_finished_run_is_in_nobodys_way(run):
    write(run, "config.json", "summary.json")
    (run.folder / "note.txt").write_text("good one")
    assert unfinished([run]) == []


def test_what_has_no_checkpoint_begins_anew(run):
    assert arguments_for(run) == run.arguments
    write(run, "config.json", "metrics.jsonl")
    assert arguments_for(run) == run.arguments
    assert not run.folder.exists()


def test_what_was_stopped_while_it_wrote_its_first_checkpoint_begins_anew(run):
    write(run, "config.json", "metrics.jsonl", epochs=3)
    (run.folder / "checkpoints" / ".step-00000012.partial").mkdir(parents=True)
    assert unfinished([run]) == [run]
    assert arguments_for(run) == run.arguments
    assert not run.folder.exists()


def test_what_has_a_checkpoint_goes_on(run):
    write(run, "config.json", "metrics.jsonl")
    (run.folder / "checkpoints" / "step-1").mkdir(parents=True)
    assert arguments_for(run) == ["resume", str(run.folder)]
    assert (run.folder / "metrics.jsonl").exists()


def test_what_would_be_stopped_again_begins_anew_where_it_is_not_to_be(run):
    write(run, "config.json", "metrics.jsonl")
    (run.folder / "checkpoints" / "step-1").mkdir(parents=True)
    run = attrs.evolve(run, config=attrs.evolve(run.config, stop_when="never"))
    assert arguments_for(run) == run.arguments
    assert not run.folder.exists()


def test_what_was_begun_with_other_options_is_refused_and_kept(run):
    write(run, "config.json", epochs=3)
    (run.folder / "checkpoints" / "step-1").mkdir(parents=True)
    for use in (arguments_for, lambda run: unfinished([run])):
        with pytest.raises(UserError, match="was begun, with epochs 3 where 2 is asked for"):
            use(run)
    assert (run.folder / "checkpoints").exists()


def test_a_run_that_another_process_is_at_work_on_is_left_alone(run):
    pytest.importorskip("fcntl")
    write(run, "config.json")
    with locked(run.folder, "it"), pytest.raises(UserError, match="another process is at work in it"):
        arguments_for(run)
    assert run.folder.exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^--out there: "):
        make_folder(tmp_path / "file" / "below", "--out there")
