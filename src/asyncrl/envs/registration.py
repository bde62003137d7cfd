"""Registers our worlds with Gymnasium; its entry point calls this on `import gymnasium`, so nothing heavy is imported."""


def register_envs() -> None:
    """Register the ids `asyncrl/...`."""
