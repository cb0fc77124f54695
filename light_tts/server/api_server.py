"""`python -m light_tts.server.api_server [FLAGS]`: the whole server; `--help` lists the flags."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from light_tts.config import ServerConfig
from light_tts.errors import InvalidInput, LightTTSError
from light_tts.flags import config_of
from light_tts.server.prepare import prepare
from light_tts.server.supervisor import Parts, Supervisor
from light_tts.threads import calm_thread_waits


def serve(config: ServerConfig) -> None:
    """Serve until a signal ends it. Raises LightTTSError, with the reason, if it cannot be started."""
    config, run_dir = prepare(config, listens=True)
    Supervisor(config, run_dir, Parts()).run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 asked to stop, 1 cannot start, 2 wrong usage."""
    calm_thread_waits()
    try:
        serve(config_of(sys.argv[1:] if arguments is None else arguments))
    except LightTTSError as error:
        sys.stderr.write(f"light-tts: {error.code}: {error}\n")
        return 2 if isinstance(error, InvalidInput) else 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
