"""Registers our worlds with Gymnasium, by the names of their modules: nothing of them is imported."""

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec

# All of dm_control 1.0.50's suite and manipulation, as tables: looking would mean to import it.
_SUITE = {
    "acrobot": ("swingup", "swingup_sparse"),
    "ball_in_cup": ("catch",),
    "cartpole": ("balance", "balance_sparse", "swingup", "swingup_sparse", "two_poles", "three_poles"),
    "cheetah": ("run",),
    "dog": ("stand", "walk", "trot", "run", "fetch"),
    "finger": ("spin", "turn_easy", "turn_hard"),
    "fish": ("upright", "swim"),
    "hopper": ("stand", "hop"),
    "humanoid": ("stand", "walk", "run", "run_pure_state"),
    "humanoid_CMU": ("stand", "walk", "run"),
    "lqr": ("lqr_2_1", "lqr_6_2"),
    "manipulator": ("bring_ball", "bring_peg", "insert_ball", "insert_peg"),
    "pendulum": ("swingup",),
    "point_mass": ("easy", "hard"),
    "quadruped": ("walk", "run", "escape", "fetch"),
    "reacher": ("easy", "hard"),
    "stacker": ("stack_2", "stack_4"),
    "swimmer": ("swimmer6", "swimmer15"),
    "walker": ("stand", "walk", "run"),
}
_MANIPULATION = (
    "lift_brick", "lift_large_box", "place_brick", "place_cradle", "reach_duplo", "reach_site",
    "reassemble_3_bricks_fixed_order", "reassemble_5_bricks_random_order", "stack_2_bricks",
    "stack_2_bricks_moveable_base", "stack_2_of_3_bricks_random_order", "stack_3_bricks", "stack_3_bricks_random_order",
)  # fmt: skip
GYMNASIUM_MUJOCO = (
    "Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedDoublePendulum", "InvertedPendulum",
    "Pusher", "Reacher", "Swimmer", "Walker2d",
)  # fmt: skip


class World(NamedTuple):
    """How one of our worlds is made."""

    entry_point: str
    kwargs: dict[str, str | bool]
    # Gymnasium's checks at every step cost a small simulator a tenth of its speed; these worlds and our tests check.
    disable_env_checker: bool = False
    order_enforce: bool = True


@cache
def our_worlds() -> dict[str, World]:
    """Return every id that we register."""
    unchecked = {"disable_env_checker": True, "order_enforce": False}
    worlds = {f"asyncrl/{name}-v0": World(f"asyncrl.envs.{place}", {}) for name, place in _OWN.items()}
    for domain, tasks in _SUITE.items():
        for task in tasks:
            for ending, pixels in (("", False), ("-pixels", True)):
                options: dict[str, str | bool] = {"domain": domain, "task": task, "pixels": pixels}
                worlds[f"dm_control/{domain}-{task}{ending}-v0"] = World(_DM_CONTROL, options, **unchecked)
    for task in _MANIPULATION:
        options = {"domain": "manipulation", "task": f"{task}_features"}
        worlds[f"dm_control/{task}_features-v0"] = World(_DM_CONTROL, options, **unchecked)
    for name in GYMNASIUM_MUJOCO:
        worlds[f"asyncrl/{name}-pixels-v5"] = World(_PIXELS, {"task": f"{name}-v5"}, **unchecked)
    return worlds


_OWN = {
    "Catch": "diagnostic:Catch",
    "MemoryChain": "diagnostic:MemoryChain",
    "TimeLimitChain": "diagnostic:TimeLimitChain",
    "Target": "diagnostic:Target",
    "Labyrinth": "labyrinth:LabyrinthEnv",
    "Torcs": "torcs:TorcsEnv",
}
_DM_CONTROL = "asyncrl.envs.mujoco:DmControlEnv"
_PIXELS = "asyncrl.envs.mujoco:PixelsEnv"


def register_envs() -> None:
    """Register the ids `asyncrl/...` and `dm_control/...`; doing it twice does no harm."""
    import gymnasium

    for env_id, world in our_worlds().items():
        if env_id not in gymnasium.registry:  # Shimmy has other environments under the ids of dm_control
            gymnasium.register(env_id, **world._asdict())


def our_spec(env_id: str) -> "EnvSpec | None":
    """Return how to make `env_id` if it is ours, whoever else has registered that name."""
    from gymnasium.envs.registration import EnvSpec

    world = our_worlds().get(env_id)
    return None if world is None else EnvSpec(env_id, **world._asdict())
