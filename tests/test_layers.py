"""A file imports from lower floors, or from its own floor where the table has it later; worlds know no torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import asyncrl

SOURCE = Path(asyncrl.__file__).parent

# From the ground up. A name is a file of the package, or the folder `envs`, whose own order is in WORLDS.
FLOORS = {
    "words": ["errors", "quantities", "typed", "machine", "handed", "keywords", "kernels", "seeding"],
    "0 maths": ["returns", "losses", "policies", "inputs", "optim", "exploration"],
    "1 nouns": [
        "checks",
        "config",
        "tape",
        "helpers",
        "passes",
        "images",
        "flat",
        "torsos",
        "networks",
        "disciplines",
        "store",
        "envs",
        "presets",
        "config_file",
        "spaces_json",
    ],
    "2 one worker": ["rollout", "algorithms", "worker", "evaluate", "spans", "roofline"],
    "3 many workers": [
        "lock",
        "pointers",
        "checkpoint",
        "saving",
        "start",
        "orders",
        "children",
        "processes",
        "journals",
        "metrics",
        "pool",
        "simulate",
        "a2c",
        "evaluator",
        "trainer",
        "speed",
    ],
    "4 people": [
        "trust",
        "arguments",
        "cli_config",
        "display",
        "agent",
        "run",
        "plots",
        "profile",
        "tune",
        "video",
        "train_verbs",
        "show_verbs",
        "worlds",
        "cli",
        "__main__",
    ],
}
WORLDS = ["options", "base", "actions", "registration", "atari", "vector", "diagnostic", "make"]
FOLDERS = ["labyrinth", "mujoco", "torcs"]  # complete worlds: Gymnasium environments that know nothing else of ours
ORDER = [name for names in FLOORS.values() for name in names]
# Installed by an extra, or slow to import: only where they are used.
LATE = {"ale_py", "dm_control", "imageio_ffmpeg", "mujoco", "optuna", "ray", "stable_baselines3", "vizdoom"}


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def module_of(file: Path) -> str:
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, *, everywhere: bool) -> Iterator[str]:
    """Yield the dotted names that a module imports, those for type checkers excepted.

    With `everywhere` also within functions, else only what happens on import.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not everywhere:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imports(node, everywhere=everywhere)


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def inner_imports(file: Path) -> set[tuple[str, ...]]:
    """Return what `file` imports of the package, as names below it: ("envs", "make", "make_envs")."""
    names = (name.split(".") for name in imports(parsed(file), everywhere=True))
    return {tuple(parts[1:]) for parts in names if parts[0] == "asyncrl" and len(parts) > 1}


def top_level_modules() -> list[Path]:
    return [f for f in files() if f.parent == SOURCE and f.name != "__init__.py"]


def test_every_file_stands_on_a_floor() -> None:
    """A new file is entered in the table above."""
    assert {f.stem for f in top_level_modules()} | {"envs"} == set(ORDER)
    assert {f.stem for f in (SOURCE / "envs").glob("*.py")} - {"__init__"} == set(WORLDS)
    assert {f.name for f in (SOURCE / "envs").iterdir() if (f / "__init__.py").exists()} == set(FOLDERS)


@pytest.mark.parametrize("file", top_level_modules(), ids=lambda f: f.stem)
def test_imports_point_down(file: Path) -> None:
    for name, *_ in inner_imports(file):
        if name != "__version__":
            assert ORDER.index(name) < ORDER.index(file.stem), f"{file.stem} imports {name}"


@pytest.mark.parametrize("name", WORLDS)
def test_imports_among_the_worlds_point_down(name: str) -> None:
    for first, *rest in inner_imports(SOURCE / "envs" / f"{name}.py"):
        if first == "envs":
            assert ([*FOLDERS, *WORLDS]).index(rest[0]) < len(FOLDERS) + WORLDS.index(name), f"{name} imports {rest[0]}"
        else:
            assert ORDER.index(first) < ORDER.index("envs"), f"envs/{name} imports {first}"


def test_networks_and_worlds_do_not_know_each_other() -> None:
    assert not [name for name in inner_imports(SOURCE / "networks.py") if name[0] == "envs"]
    for file in (SOURCE / "envs").rglob("*.py"):
        assert {name[0] for name in inner_imports(file)} <= {"envs", "errors", "handed", "config", "machine"}, file


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_world_in_a_folder_needs_only_itself(folder: str) -> None:
    for file in (SOURCE / "envs" / folder).rglob("*.py"):
        for name in inner_imports(file):
            assert name[0] in ("errors", "machine") or name[:2] in {("envs", folder), ("envs", "options")}, (
                f"{file.name} imports {'.'.join(name)}"
            )


def test_worlds_never_import_torch() -> None:
    for file in (SOURCE / "envs").rglob("*.py"):
        assert not [name for name in imports(parsed(file), everywhere=True) if name.split(".")[0] == "torch"], file


@pytest.mark.parametrize("file", files(), ids=module_of)
def test_optional_packages_are_imported_where_they_are_used(file: Path) -> None:
    assert not {name.split(".")[0] for name in imports(parsed(file), everywhere=False)} & LATE


def test_only_the_cluster_imports_ray() -> None:
    users = [f.stem for f in files() if any(n.split(".")[0] == "ray" for n in imports(parsed(f), everywhere=True))]
    assert set(users) <= {"cluster"}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import asyncrl", ["torch", "gymnasium", "numpy"]),
        ("import asyncrl.envs", ["torch", "ale_py"]),
        ("from asyncrl.envs.registration import register_envs; register_envs()", ["torch", "asyncrl.envs.diagnostic"]),
        ("import asyncrl.cli", ["torch", "gymnasium"]),
        ("import asyncrl.cli_config, asyncrl.children", ["torch", "ale_py"]),
    ],
)
def test_importing_loads_nothing_heavy(statement: str, absent: list[str]) -> None:
    code = f"{statement}\nimport sys\nprint([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_public_names_are_there_and_no_others() -> None:
    for name in asyncrl.__all__:
        assert getattr(asyncrl, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        asyncrl.no_such_name  # noqa: B018
