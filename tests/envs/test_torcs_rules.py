"""What of the TORCS world can be checked without TORCS: rules, controls, scripted driver, messages."""

import subprocess
import types

import numpy as np
import pytest

from asyncrl.envs.torcs import autopilot, build, catalog, controls, rules
from asyncrl.envs.torcs.process import CarState
from asyncrl.errors import UserError

STILL = CarState(*[0.0] * 10, *[0.0] * 5, 100.0, 0.0, 0.0, 1, 0, 1, 0, 0.0, 0.0)._replace(width=10.0, red_line=600.0)
CRUISING = STILL._replace(speed_x=20.0, along=20.0, mean_along=20.0)


@pytest.fixture
def referee():
    return rules.Referee(rules.Rules(), 0.1)


def looks_until_end(referee, car, most=200):
    for look in range(1, most + 1):
        reason = referee.judge(car)
        if reason:
            return look, reason
    return most, ""


def test_driving_along_the_road_never_ends(referee):
    assert looks_until_end(referee, CRUISING) == (200, "")


@pytest.mark.parametrize("side", [-1, 1])
def test_off_track_counts_from_the_edge(referee, side):
    assert referee.judge(CRUISING._replace(to_middle=side * 5.9)) == ""
    assert referee.judge(CRUISING._replace(to_middle=side * 6.0)) == "off_track"


def test_standing_ends_after_five_seconds(referee):
    assert looks_until_end(referee, STILL) == (50, "stuck")


def test_moving_again_restarts_the_clock(referee):
    for _ in range(49):
        assert referee.judge(STILL) == ""
    referee.judge(CRUISING)
    assert looks_until_end(referee, STILL) == (50, "stuck")


def test_backward_ends_after_two_seconds_and_reset_forgets(referee):
    backward = CRUISING._replace(mean_along=-5.0)
    for _ in range(19):
        assert referee.judge(backward) == ""
    referee.reset()
    assert looks_until_end(referee, backward) == (20, "backward")


def test_damage_and_removal_end(referee):
    assert referee.judge(CRUISING._replace(damage=4999)) == ""
    assert referee.judge(CRUISING._replace(damage=5000)) == "damage"
    assert referee.judge(CRUISING._replace(state=0x04)) == "out_of_race"


def test_none_switches_a_rule_off():
    free = rules.Referee(rules.Rules(None, None, None, None, None), 0.1)
    assert looks_until_end(free, STILL._replace(to_middle=50.0, damage=9000, mean_along=-9.0)) == (200, "")
    assert not free.time_is_up(STILL._replace(seconds=1e6))


def test_rules_refuse_negative_limits():
    with pytest.raises(UserError, match="stuck_seconds"):
        rules.Rules(stuck_seconds=-1.0)


def test_nine_actions_in_the_documented_order():
    table = [controls.discrete_controls(action, 0.0, 0.5) for action in range(9)]
    assert [steer for steer, _, _ in table] == [0.5] * 3 + [0.0] * 3 + [-0.5] * 3
    assert [(accelerator, brake) for _, accelerator, brake in table] == [(1, 0), (0, 0), (0, 1)] * 3


@pytest.mark.parametrize(("speed", "steer"), [(0, 0.5), (10, 0.5), (20, 0.25), (50, 0.1), (-50, 0.1)])
def test_steering_falls_with_speed(speed, steer):
    assert controls.discrete_controls(0, speed, 0.5)[0] == pytest.approx(steer)


@pytest.mark.parametrize(
    ("action", "wanted"), [((0.3, 0.6), (0.3, 0.6, 0)), ((-2, -2), (-1, 0, 1)), ((0, 0), (0, 0, 0))]
)
def test_continuous_pedal_is_one_axis(action, wanted):
    assert controls.continuous_controls(np.array(action)) == pytest.approx(wanted)


def test_state_vector_is_scaled_and_clipped():
    vector = controls.state_vector(CRUISING._replace(to_middle=-5.0, angle=40.0))
    assert vector.shape == (len(controls.STATE_NAMES),) == controls.state_space().shape
    assert vector[:4] == pytest.approx([0.4, 0.0, 3.0, -1.0])
    assert controls.state_space().contains(vector)


def test_scripted_driver_steers_back_and_brakes_for_bends():
    assert autopilot.follow_centre(CRUISING._replace(to_middle=3.0))[0] < 0  # left of the middle: to the right
    assert autopilot.follow_centre(CRUISING._replace(angle=0.2))[0] > 0  # the road goes left
    assert autopilot.follow_centre(CRUISING)[1] == 1.0
    assert autopilot.follow_centre(CRUISING._replace(turn_20=1.0, turn_40=1.0, turn_80=1.0, turn_160=1.0))[1] < 0
    assert autopilot.follow_centre_discrete(CRUISING) == 3


@pytest.fixture
def fresh_check():
    build.check_installed.cache_clear()
    yield
    build.check_installed.cache_clear()


def test_messages_say_what_to_install(monkeypatch, tmp_path, fresh_check):
    monkeypatch.setattr(build.platform, "system", lambda: "Linux")
    monkeypatch.setattr(build.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(build, "LIBRARY_FOLDER", tmp_path / "absent")
    with pytest.raises(UserError, match=r"not installed; .*apt-get install .*torcs") as caught:
        build.check_installed()
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(build.platform, "machine", lambda: "aarch64")
    with pytest.raises(UserError, match="needs Linux on amd64, and this is Linux aarch64"):
        build.check_installed()


def test_another_version_is_refused(monkeypatch, tmp_path, fresh_check):
    (tmp_path / "modules").mkdir()
    (tmp_path / "tracks").mkdir()
    monkeypatch.setattr(build.platform, "system", lambda: "Linux")
    monkeypatch.setattr(build.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(build, "LIBRARY_FOLDER", tmp_path)
    monkeypatch.setattr(build, "DATA_FOLDER", tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: types.SimpleNamespace(stdout="1.3.8-1"))
    with pytest.raises(UserError, match=r"needs Debian's torcs 1.3.7\+dfsg-5\*, and 1.3.8-1 is installed"):
        build.check_installed()


def test_missing_compiler_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"needs g\+\+; .*apt-get install"):
        build._compile(tmp_path / "host")


def test_robot_file_of_torcs_is_read(tmp_path):
    file = tmp_path / "bt.xml"
    file.write_text(
        '<?xml version="1.0"?>\n<!-- x -->\n<!DOCTYPE params SYSTEM "params.dtd">\n<params><section name="Robots">'
        '<section name="index"><section name="3"><attstr name="car name" val="p406"/>'
        "</section></section></section></params>"
    )
    assert catalog._drivers_in(file) == [(3, "p406")]
