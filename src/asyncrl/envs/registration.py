"""Registers our worlds with Gymnasium; `import gymnasium` calls this through an entry point, so it imports nothing."""

_WORLDS = {
    "asyncrl/Catch-v0": "asyncrl.envs.diagnostic:Catch",
    "asyncrl/MemoryChain-v0": "asyncrl.envs.diagnostic:MemoryChain",
    "asyncrl/TimeLimitChain-v0": "asyncrl.envs.diagnostic:TimeLimitChain",
    "asyncrl/Target-v0": "asyncrl.envs.diagnostic:Target",
    "asyncrl/Labyrinth-v0": "asyncrl.envs.labyrinth:LabyrinthEnv",
    "asyncrl/Torcs-v0": "asyncrl.envs.torcs:TorcsEnv",
}


def register_envs() -> None:
    """Register the ids `asyncrl/...`; doing it twice does no harm."""
    import gymnasium

    for env_id, entry_point in _WORLDS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point=entry_point)
