"""Registers our worlds with Gymnasium; `import gymnasium` calls this through an entry point, so it imports nothing."""


def register_envs() -> None:
    """Register the ids `asyncrl/...`."""
