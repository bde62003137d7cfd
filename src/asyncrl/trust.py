"""What a file may make us do: name an environment, never import its author's code unasked."""

from asyncrl.envs.make import is_import_path
from asyncrl.errors import UserError


def require_repeated(env: str, repeated: str | None) -> None:
    """Check that an import path read from a file has been repeated by the user.

    Raises:
        UserError: if `env` would import a module and `repeated` is not the same, or is another environment altogether.
    """
    if repeated is not None and repeated != env:
        raise UserError(f"the run was trained on {env}, not on {repeated}")
    if is_import_path(env) and repeated is None:
        raise UserError(f"the run's environment imports code ({env}): repeat it with --env {env} if you trust it")
