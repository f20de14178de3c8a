"""The HTTP server and the `sessions` command: one more adapter round sessions_core."""

from importlib.util import find_spec

if not all(map(find_spec, ("aiohttp", "jwt", "msgspec", "prometheus_client"))):
    message = "The server and the `sessions` command require sessions[server]"
    raise ImportError(message)
