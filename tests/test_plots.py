"""Learning curves."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asyncrl.cli import main
from asyncrl.config import Config
from asyncrl.config_file import write_config
from asyncrl.errors import UserError
from asyncrl.metrics import RunLog
from asyncrl.plots import _curves, _evaluations, _read, _told_apart, plot_runs


def make_run(folder: Path, scores: list[float], evaluations: int = 0, seed: int = 0) -> Path:
    folder.mkdir()
    write_config(folder / "config.toml", Config(seed=seed), {})
    episodes = [{"score": s, "at_frames": 1_000 * i, "at_seconds": 60.0 * i} for i, s in enumerate(scores)]
    (folder / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in episodes))
    rows = [
        {"evaluated_score": 5.0, "evaluated_episodes": 30, "frames": 2_000 * i, "seconds": 120.0 * i}
        for i in range(evaluations)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [{"frames": 0}, *rows]))
    return folder


def test_the_curve_is_the_mean_of_the_last_hundred(tmp_path):
    scores = np.random.default_rng(0).normal(size=250).tolist()
    curve = _curves(make_run(tmp_path / "run", scores), by_epsilon=False)[""]
    expected = [np.mean(scores[max(0, i - 99) : i + 1]) for i in range(19, 250)]  # no mean of less than twenty
    np.testing.assert_allclose(curve["score"], expected)
    assert curve["frames"][-1] == 249_000


def test_runs_are_drawn_in_colours_of_their_own(tmp_path):
    runs = [make_run(tmp_path / str(i), [float(i)] * 120, evaluations=3, seed=i) for i in range(9)]
    plot_runs(runs, tmp_path / "curves.png")
    picture = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"))
    assert picture.shape[0] > 400 and picture.shape[1] > 1_000
    for colour in ("#0072B2", "#D55E00", "#009E73"):
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (picture == rgb).all(-1).sum() > 100


def test_what_was_given_up_is_not_drawn(tmp_path):
    """Trained to 5,000 frames, and gone on with from 2,000."""
    run = make_run(tmp_path / "run", [])
    frames = (1_000, 2_000, 3_000, 4_000, 5_000, 2_500, 3_500)
    rows = [{"score": f / 1_000, "at_frames": f, "at_seconds": f / 100} for f in frames]
    (run / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [
        {"frames": f, "seconds": f / 100, "evaluated_score": f / 1_000, "evaluated_episodes": 30} for f in frames[:-1]
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"frames": 3_500}]))
    curve = _curves(run, by_epsilon=False)[""]
    assert curve["frames"].tolist() == [2_000, 2_500, 3_500]  # no mean of the first
    assert curve["score"].tolist() == pytest.approx([1.5, 5.5 / 3, 9 / 4])
    assert _evaluations(run)["frames"].tolist() == [1_000, 2_000, 2_500]


def test_runs_of_the_same_settings_are_told_apart(tmp_path):
    runs = [make_run(tmp_path / name, [1.0, 2.0], seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    labels = [drawing.label for drawing in _told_apart({run: _read(run, False) for run in runs})]
    assert [label.partition(", seed ")[2] for label in labels] == [f"0, {runs[0]}", f"0, {runs[1]}", "1"]


def test_a_name_with_an_underscore_has_its_entry(tmp_path):
    run = make_run(tmp_path / "run", [1.0, 2.0])
    write_config(run / "config.toml", Config(env="_worlds:make"), {})
    plot_runs([run], tmp_path / "x.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "x.png"]


def test_a_name_with_dollars_is_drawn_as_it_is(tmp_path):
    run = make_run(tmp_path / "run", [1.0])
    write_config(run / "config.toml", Config(env="$\\bad{$"), {})
    plot_runs([run], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").is_file()


@pytest.mark.parametrize("error", [RuntimeError("latex was not\nfound"), KeyboardInterrupt()])
def test_a_picture_that_fails_leaves_nothing(tmp_path, monkeypatch, error):
    def fail(self, file, **how):
        Path(file).write_text("half")
        raise error

    run = make_run(tmp_path / "run", [1.0] * 30)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(UserError if isinstance(error, RuntimeError) else KeyboardInterrupt) as caught:
        plot_runs([run], tmp_path / "curves.pgf")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [run]


def test_a_pipe_for_a_file_keeps_nobody_waiting(tmp_path):
    run = make_run(tmp_path / "run", [1.0] * 30)
    (run / "episodes.jsonl").unlink()
    os.mkfifo(run / "episodes.jsonl")
    with pytest.raises(UserError, match="no finished episodes"):
        plot_runs([run], tmp_path / "curves.png")
    with pytest.raises(UserError, match="cannot write"):
        RunLog(run, print)


def test_curves_by_final_epsilon(tmp_path):
    run = make_run(tmp_path / "run", [])
    rows = [
        {
            "worker": worker,
            "environment": environment,
            "score": 10.0 * worker + environment,
            "final_epsilon": (0.1, 0.5)[environment],
            "at_frames": i,
            "at_seconds": float(i),
        }
        for i in range(20)
        for worker in (0, 1)
        for environment in (0, 1)
    ]
    (run / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    curves = _curves(run, by_epsilon=True)
    assert list(curves) == [", epsilon 0.1", ", epsilon 0.5"]
    assert [(len(curve["score"]), curve["score"][-1]) for curve in curves.values()] == [(11, 5.0), (11, 6.0)]
    assert curves[", epsilon 0.1"]["frames"].tolist() == list(range(9, 20))  # of two that end together, the later mean
    plot_runs([run], tmp_path / "x.png", by_epsilon=True)
    assert (tmp_path / "x.png").exists()
    with pytest.raises(UserError, match="other has episodes without a final epsilon: --by-epsilon is for Q methods"):
        other = make_run(tmp_path / "other", [1.0])
        (other / "episodes.jsonl").write_text('{"worker": 0, "environment": 0, "score": 1.0}\n')
        plot_runs([other], tmp_path / "y.png", by_epsilon=True)


@pytest.mark.parametrize(
    ("row", "out", "complaint"),
    [
        ({"score": 10**400}, "x.png", "the rows of .* are damaged: OverflowError"),
        ({"score": 1.0, "at_frames": "x"}, "x.png", "the rows of .* are damaged: ValueError"),
        ({"score": 1.0, "at_seconds": None}, "x.png", "the rows of .* are damaged: TypeError"),
        ({"score": 1.0, "at_frames": math.nan}, "x.png", "the rows of .* are damaged: ValueError"),
        ({"score": 1.0}, "curves", "curves must end in .png"),
    ],
    ids=["a number too large", "a word", "nothing", "no number", "no suffix"],
)
def test_what_is_told_in_one_line(tmp_path, row, out, complaint):
    run = make_run(tmp_path / "run", [])
    (run / "episodes.jsonl").write_text(json.dumps({"at_frames": 1, "at_seconds": 1.0, **row}) + "\n")
    with pytest.raises(UserError, match=complaint) as caught:
        plot_runs([run], tmp_path / out)
    assert "\n" not in str(caught.value) and sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_what_cannot_be_drawn(tmp_path):
    empty = make_run(tmp_path / "empty", [])
    with pytest.raises(UserError, match="empty: no finished episodes to plot"):
        plot_runs([empty], tmp_path / "x.png")
    with pytest.raises(UserError, match=r"there is no run at .*none"):
        plot_runs([tmp_path / "none"], tmp_path / "x.png")
    run = make_run(tmp_path / "run", [1.0])
    for out in ("nowhere/x.png", "x.docx"):
        with pytest.raises(UserError, match=f"cannot write .*{out}"):
            plot_runs([run], tmp_path / out)
    assert not (tmp_path / "x.png").exists()


def test_a_run_without_episodes_does_not_spoil_the_picture_of_others(tmp_path, capsys):
    runs = [make_run(tmp_path / "empty", []), make_run(tmp_path / "run", [1.0, 2.0])]
    words = ["plot", *map(str, runs), "--out"]
    assert main([*words, str(tmp_path / "both.png")]) == 0
    told = capsys.readouterr().out
    assert told == f"{tmp_path}/both.png: 1 run\n{runs[0]} is not in it: it has no finished episodes yet\n"
    assert main([*words, str(tmp_path / "again.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == [str(runs[0])]
    plot_runs(runs[1:], tmp_path / "one.png")
    assert (tmp_path / "both.png").read_bytes() == (tmp_path / "one.png").read_bytes()


@pytest.mark.parametrize("row", ['{"score": 1.0}', '{"score": "x", "at_frames": 1, "at_seconds": 1}'])
def test_damaged_rows_are_told(tmp_path, row):
    run = make_run(tmp_path / "run", [1.0])
    (run / "episodes.jsonl").write_text(row + "\n")
    with pytest.raises(UserError, match=r"the rows of .*run are damaged: "):
        plot_runs([run], tmp_path / "x.png")


def test_what_is_no_row_is_left_out(tmp_path):
    run = make_run(tmp_path / "run", [1.0, 2.0])
    with (run / "episodes.jsonl").open("ab") as file:
        file.write(b'\xff\xfe\n3\nnull\n{"score": 1\n' + b"[" * 100_000)
    assert _curves(run, by_epsilon=False)[""]["score"].tolist() == [1.0, 1.5]
