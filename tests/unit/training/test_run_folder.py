"""What a run writes, when it stops by itself, and what it does when writing fails."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import shutil
import signal

import pytest
import torch
from line_objective import Line
from safetensors.torch import load_file, save_file

from izograf.schema.errors import CardError, InvalidInput, StorageError, TrainingDiverged
from izograf.training import run as run_module
from izograf.training import state as state_module
from izograf.training.run import execute, stop_signals

ASKED = {"recipe": "line", "hyperparameters": {"learning_rate": 0.05, "seed": 0}}


def log_of(folder) -> list[dict]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=pytest.fail) for line in lines]


def counts(folder) -> list[int]:
    return [int(path.name.removeprefix("images-")) for path in checkpoints(folder)]


def checkpoints(folder) -> list:
    return sorted((folder / "checkpoints").iterdir())


def weights(folder) -> bytes:
    return (checkpoints(folder)[-1] / "state.safetensors").read_bytes()


def test_checkpoints_are_kept_as_many_as_asked(job_for, tmp_path) -> None:
    reason = execute(job_for(Line(), keep=3), tmp_path / "run", asked=ASKED)
    assert reason == "all images seen"
    assert counts(tmp_path / "run") == [24, 32, 40]


def test_the_best_checkpoint_is_kept_besides_the_newest(job_for, tmp_path) -> None:
    scores = iter([5.0, 1.0, 2.0, 3.0, 4.0])
    job = job_for(
        Line(), evaluate=lambda _: {"error": next(scores)}, evaluate_every=8, monitor="error"
    )
    execute(job, tmp_path / "run", asked=ASKED)
    assert counts(tmp_path / "run") == [16, 32, 40]


def test_patience_counts_evaluations_without_improvement(job_for, tmp_path) -> None:
    scores = iter([5.0, 4.0, 4.5, 3.0, 3.0, 3.5, 1.0, 1.0, 1.0, 1.0])
    job = job_for(
        Line(), evaluate=lambda _: {"error": next(scores)}, evaluate_every=4,
        monitor="error", patience=2,
    )  # fmt: skip
    reason = execute(job, tmp_path / "run", asked=ASKED)
    assert reason == "error has not improved for 2 evaluations (best 3 at 16 images)"
    assert counts(tmp_path / "run") == [16, 24]


def test_early_stopping_makes_the_best_weights_the_model(job_for, tmp_path) -> None:
    scores = iter([5.0, 3.0, 3.5, 4.0])
    job = job_for(
        Line(), evaluate=lambda _: {"error": next(scores)}, evaluate_every=4,
        monitor="error", patience=2,
    )  # fmt: skip
    exported = []

    def export(averaged, folder, facts) -> None:
        del folder
        exported.append((facts["images_seen"], [p.clone() for p in averaged.parameters()]))

    object.__setattr__(job, "export", export)
    execute(job, tmp_path / "run", asked=ASKED)
    by_count = dict(exported[:-1])
    count, model = exported[-1]
    assert count == 8
    assert all(map(torch.equal, model, by_count[8]))
    assert not all(map(torch.equal, model, by_count[16]))


def test_without_patience_a_run_goes_on_whatever_the_score(job_for, tmp_path) -> None:
    job = job_for(Line(), evaluate=lambda _: {"error": 1.0}, evaluate_every=4, monitor="error")
    assert execute(job, tmp_path / "run", asked=ASKED) == "all images seen"


def test_a_score_that_is_no_number_is_no_improvement_and_no_bad_json(job_for, tmp_path) -> None:
    job = job_for(
        Line(), evaluate=lambda _: {"error": math.nan}, evaluate_every=20, monitor="error"
    )
    facts = []
    object.__setattr__(job, "export", lambda *given: facts.append(given[-1]))
    execute(job, tmp_path / "run", asked=ASKED)
    assert [line["error"] for line in log_of(tmp_path / "run") if "error" in line] == [None, None]
    assert "error" not in facts[-1]["evaluated"]


def test_a_resumed_run_ends_in_the_same_weights(job_for, tmp_path) -> None:
    execute(job_for(Line()), tmp_path / "whole", asked=ASKED)
    with pytest.raises(KeyboardInterrupt):
        execute(
            job_for(Line()), tmp_path / "parted", asked=ASKED,
            on_progress=interrupt_at(20),
        )  # fmt: skip
    assert counts(tmp_path / "parted") == [8, 16]
    execute(job_for(Line()), tmp_path / "parted", asked=ASKED, resume=True)
    assert weights(tmp_path / "parted") == weights(tmp_path / "whole")


def interrupt_at(count: int):
    def progress(images_seen: int, rate: float, stats: object) -> None:
        del rate, stats
        if images_seen == count:
            raise KeyboardInterrupt

    return progress


def snapshotting(job, facts=None):
    """`job`, which writes its averaged weights at the early time, and notes facts of exports."""

    def keep(averaged, folder) -> None:
        save_file(averaged.state_dict(), folder / "early.safetensors")

    object.__setattr__(job, "keep_early", keep)
    if facts is not None:
        object.__setattr__(job, "export", lambda *given: facts.append(given[-1]))
    return job


@pytest.mark.parametrize("wanted", [9, 12])
def test_the_early_snapshot_is_taken_once_and_told_of_older_models_never(
    job_for, tmp_path, wanted
) -> None:
    facts: list[dict] = []
    execute(
        snapshotting(job_for(Line(), early_snapshot=wanted), facts), tmp_path / "a", asked=ASKED
    )
    told = {fact["images_seen"]: fact.get("early_snapshot") for fact in facts}
    assert told == {8: None, 16: 12, 24: 12, 32: 12, 40: 12}
    plain = job_for(Line(), images=12)
    kept: list[torch.Tensor] = []
    object.__setattr__(plain, "export", lambda a, *_: kept.append(a["line"].weight.clone()))
    execute(plain, tmp_path / "b", asked=ASKED)
    early = load_file(tmp_path / "a" / "early.safetensors")
    assert torch.equal(early["line.weight"], kept[-1])


def test_without_asking_there_is_no_early_snapshot(job_for, tmp_path) -> None:
    execute(snapshotting(job_for(Line())), tmp_path / "run", asked=ASKED)
    assert not (tmp_path / "run" / "early.safetensors").exists()


@pytest.mark.parametrize("died", [8, 12, 16, 20, 36])
def test_a_run_that_died_has_the_same_early_snapshot(job_for, tmp_path, died) -> None:
    """Before it, between it and the checkpoint at 16, and after."""
    facts: list[dict] = []

    def job():
        return snapshotting(job_for(Line(), early_snapshot=12), facts)

    execute(job(), tmp_path / "whole", asked=ASKED)
    folder = tmp_path / "parted"
    with pytest.raises(KeyboardInterrupt):
        execute(job(), folder, asked=ASKED, on_progress=interrupt_at(died))
    path = folder / "early.safetensors"
    changed = path.stat().st_mtime_ns if died > 16 else None
    execute(job(), folder, asked=ASKED, resume=True)
    assert path.read_bytes() == (tmp_path / "whole" / "early.safetensors").read_bytes()
    assert changed in (None, path.stat().st_mtime_ns), "taken again, though a checkpoint had it"
    assert facts[-1]["early_snapshot"] == 12


def test_a_best_model_older_than_the_snapshot_does_not_name_it(job_for, tmp_path) -> None:
    scores = iter([3.0, 1.0, 3.0, 3.0, 3.0, 3.0])
    facts: list[dict] = []
    job = job_for(
        Line(), evaluate=lambda _: {"error": next(scores)}, evaluate_every=4,
        monitor="error", patience=3, early_snapshot=12,
    )  # fmt: skip
    execute(snapshotting(job, facts), tmp_path / "run", asked=ASKED)
    assert facts[-2]["early_snapshot"] == 12
    assert facts[-1]["images_seen"] == 8
    assert "early_snapshot" not in facts[-1]


def test_a_resumed_run_logs_no_line_twice(job_for, tmp_path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        execute(job_for(Line()), folder, asked=ASKED, on_progress=interrupt_at(20))
    assert [line["images_seen"] for line in log_of(folder)] == [4, 8, 12, 16, 20]
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"images_seen": 24, "seco')  # a kill cuts a line short
    execute(job_for(Line()), folder, asked=ASKED, resume=True)
    assert [line["images_seen"] for line in log_of(folder)] == list(range(4, 44, 4))


def test_resuming_a_finished_run_keeps_what_it_was_measured_at(job_for, tmp_path) -> None:
    facts = []
    folder = tmp_path / "run"
    for resume in (False, True):
        job = job_for(Line(), evaluate=lambda _: {"error": 0.5}, evaluate_every=8)
        object.__setattr__(job, "export", lambda *given: facts.append(given[-1]))
        execute(job, folder, asked=ASKED, resume=resume)
    assert facts[0]["evaluated"]["error"] == 0.5
    assert facts[-1]["evaluated"]["error"] == 0.5
    assert facts[-1]["seconds"] >= facts[0]["seconds"]


def test_what_a_killed_process_left_half_written_is_removed(job_for, tmp_path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        execute(job_for(Line()), folder, asked=ASKED, on_progress=interrupt_at(12))
    shutil.copytree(
        folder / "checkpoints" / "images-000000000008",
        folder / "checkpoints" / ".images-000000000012.4711.tmp",
    )
    execute(job_for(Line()), folder, asked=ASKED, resume=True)
    assert not [path for path in checkpoints(folder) if path.name.startswith(".")]


def test_a_run_that_died_before_its_first_checkpoint_resumes_from_the_start(
    job_for, tmp_path
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        execute(job_for(Line()), folder, asked=ASKED, on_progress=interrupt_at(4))
    execute(job_for(Line()), folder, asked=ASKED, resume=True)
    execute(job_for(Line()), tmp_path / "whole", asked=ASKED)
    assert weights(folder) == weights(tmp_path / "whole")


def test_resuming_with_other_settings_names_only_those_that_differ(job_for, tmp_path) -> None:
    execute(job_for(Line()), tmp_path / "run", asked=ASKED)
    other = {**ASKED, "hyperparameters": {"learning_rate": 0.1, "seed": 0, "l1": 1.0}}
    with pytest.raises(InvalidInput) as refusal:
        execute(job_for(Line()), tmp_path / "run", asked=other, resume=True)
    assert "learning_rate: was 0.05, now 0.1; l1: was None, now 1.0" in str(refusal.value)
    assert "seed" not in str(refusal.value)


@pytest.mark.parametrize("content", ["", "[1]", "{", "null"])
def test_a_damaged_run_file_is_a_sentence(job_for, tmp_path, content) -> None:
    execute(job_for(Line()), tmp_path / "run", asked=ASKED)
    (tmp_path / "run" / "run.json").write_text(content)
    with pytest.raises(InvalidInput, match="cannot be read"):
        execute(job_for(Line()), tmp_path / "run", asked=ASKED, resume=True)


def test_there_is_nothing_to_resume_in_an_empty_folder(job_for, tmp_path) -> None:
    with pytest.raises(InvalidInput, match="no run to resume"):
        execute(job_for(Line()), tmp_path / "run", asked=ASKED, resume=True)
    assert not (tmp_path / "run").exists()


def test_one_process_at_a_time_trains_in_a_folder(job_for, tmp_path) -> None:
    folder = tmp_path / "run"
    execute(job_for(Line()), folder, asked=ASKED)
    before = weights(folder)
    with (folder / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InvalidInput, match="Another process is training"):
            execute(job_for(Line()), folder, asked=ASKED, resume=True)
    assert weights(folder) == before
    execute(job_for(Line()), folder, asked=ASKED, resume=True)  # the lock went with its holder


@pytest.mark.parametrize("spoiled", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run_with_the_last_good_checkpoint(
    job_for, tmp_path, spoiled
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(TrainingDiverged) as failure:
        execute(job_for(Line(spoil={6: spoiled})), folder, asked=ASKED)
    assert "after 28 images" in str(failure.value)
    assert str(folder / "checkpoints" / "images-000000000024") in str(failure.value)
    assert counts(folder) == [16, 24]
    good = load_file(folder / "checkpoints" / "images-000000000024" / "state.safetensors")
    assert all(bool(value.isfinite().all()) for value in good.values())


def test_ruined_weights_are_never_saved_even_where_no_loss_was_logged(job_for, tmp_path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(TrainingDiverged, match="a weight is not finite"):
        execute(job_for(Line(spoil={3: math.nan}), log_every=1000), folder, asked=ASKED)
    assert counts(folder) == [8]


def test_diverging_at_once_says_that_nothing_was_saved(job_for, tmp_path) -> None:
    with pytest.raises(TrainingDiverged, match="no checkpoint existed yet"):
        execute(job_for(Line(spoil={0: math.nan})), tmp_path / "run", asked=ASKED)


def test_a_full_disk_is_one_sentence_and_the_earlier_checkpoint_is_unharmed(
    job_for, tmp_path, monkeypatch
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        write = state_module.save_tensors

        def fail_later(path, tensors) -> None:
            if "16" in path.parent.name:
                path.write_bytes(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")
            write(path, tensors)

        patch.setattr(state_module, "save_tensors", fail_later)
        with pytest.raises(StorageError, match="The disk is full") as failure:
            execute(job_for(Line()), folder, asked=ASKED)
    assert "run the same command again" in str(failure.value)
    assert counts(folder) == [8]
    execute(job_for(Line()), folder, asked=ASKED, resume=True)
    execute(job_for(Line()), tmp_path / "whole", asked=ASKED)
    assert weights(folder) == weights(tmp_path / "whole")


def test_a_folder_that_cannot_be_made_is_one_sentence(job_for, tmp_path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(StorageError, match="Cannot write"):
        execute(job_for(Line()), tmp_path / "file" / "run", asked=ASKED)


@pytest.mark.parametrize("damage", ["state.json", "state.safetensors"])
def test_a_damaged_checkpoint_says_how_to_go_on_without_it(job_for, tmp_path, damage) -> None:
    folder = tmp_path / "run"
    execute(job_for(Line()), folder, asked=ASKED)
    path = checkpoints(folder)[-1] / damage
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CardError, match="remove it to go on from the one before"):
        execute(job_for(Line()), folder, asked=ASKED, resume=True)
    shutil.rmtree(path.parent)
    execute(job_for(Line()), folder, asked=ASKED, resume=True)
    execute(job_for(Line()), tmp_path / "whole", asked=ASKED)
    assert weights(folder) == weights(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_saves_the_step_it_came_in(job_for, tmp_path, number) -> None:
    def progress(images_seen: int, rate: float, stats: object) -> None:
        del rate, stats
        if images_seen == 20:
            signal.raise_signal(number)

    folder = tmp_path / "run"
    reason = execute(job_for(Line()), folder, asked=ASKED, on_progress=progress)
    assert reason == "stopped by a signal"
    assert counts(folder)[-1] == 20
    execute(job_for(Line()), folder, asked=ASKED, resume=True)
    execute(job_for(Line()), tmp_path / "whole", asked=ASKED)
    assert weights(folder) == weights(tmp_path / "whole")


def test_a_second_interrupt_ends_at_once_and_the_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_signals() as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGINT)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


class Board:
    def __init__(self, images_seen: int) -> None:
        self.start, self.numbers, self.closed = images_seen, [], False

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.numbers.append((tag, scalar_value, global_step))

    def close(self) -> None:
        self.closed = True


def test_logged_numbers_also_go_to_a_board_that_is_closed_at_the_end(job_for, tmp_path) -> None:
    boards = []

    def open_board(images_seen: int) -> Board:
        boards.append(Board(images_seen))
        return boards[-1]

    with pytest.raises(KeyboardInterrupt):
        execute(
            job_for(Line()), tmp_path / "run", asked=ASKED, open_scalars=open_board,
            on_progress=interrupt_at(20),
        )  # fmt: skip
    execute(job_for(Line()), tmp_path / "run", asked=ASKED, open_scalars=open_board, resume=True)
    assert [board.start for board in boards] == [0, 16]
    assert all(board.closed for board in boards)
    steps = [step for tag, _, step in boards[1].numbers if tag == "fit/loss"]
    assert steps == [20, 24, 28, 32, 36, 40]


def test_the_state_of_the_optimiser_is_restored_exactly(state_for, tmp_path) -> None:
    def objective() -> Line:
        made = Line()
        made.optimizer = torch.optim.AdamW(made.modules.parameters(), lr=0.01, betas=(0.5, 0.9))
        return made

    first, second = objective(), objective()
    loss = first.modules["line"](torch.ones(1, 12)).sum()
    loss.backward()
    first.optimizer.step()
    state = state_for(first)
    state.step, state.images_seen = 1, 4
    saved = state_module.save_state(tmp_path, first, state, {"note": "x"})
    restored = state_for(second)
    assert state_module.load_state(saved, second, restored) == {"note": "x"}
    assert (restored.step, restored.images_seen) == (1, 4)
    before, after = first.optimizer.state_dict(), second.optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for index, entries in before["state"].items():
        for name, value in entries.items():
            assert torch.equal(after["state"][index][name], value), name


def test_a_run_is_the_same_with_and_without_watching(job_for, tmp_path) -> None:
    execute(job_for(Line(), log_every=1000, checkpoint_every=1000), tmp_path / "a", asked=ASKED)
    job = job_for(Line(), evaluate=lambda _: {"error": 1.0}, evaluate_every=4, monitor="error")
    execute(job, tmp_path / "b", asked=ASKED)
    first, second = (load_file(checkpoints(tmp_path / n)[-1] / "state.safetensors") for n in "ab")
    assert set(first) == set(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert run_module.check_folder(tmp_path / "a", ASKED, resume=True) is None
