"""The official JavaScript clients against a server that limits them: they wait as told, and get through."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import pytest

from harness.node import CLIENTS, NODE
from harness.scenarios import environment_for
from harness.server import ServerProcess

pytestmark = [pytest.mark.needs_node, pytest.mark.slow]

SCRIPT: Final = """
import { sessions } from "@trigger.dev/sdk";
const made = await sessions.start({
  type: "chat.agent", externalId: "limited", taskIdentifier: "echo", triggerConfig: { basePayload: {} },
});
for (let number = 0; number < 3; number++) {
  const { id } = await sessions.retrieve("limited");
  if (id !== made.id) throw new Error(id);
}
"""


def test_a_client_that_is_refused_waits_for_the_reset_and_gets_through(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", environment={"SESSIONS_ENVIRONMENT_RATE": "1:1"}) as server:
        command = [NODE.get(), "--input-type=module", "--eval", SCRIPT]
        environment = environment_for(server)
        done = subprocess.run(
            command, cwd=CLIENTS, env=environment, capture_output=True, text=True, timeout=50, check=False
        )
        with urlopen(f"{server.address}/metrics") as answer:
            lines = answer.read().decode().splitlines()
    assert done.returncode == 0, done.stderr
    [refused] = [line for line in lines if line.startswith('sessions_requests_refused_total{limit="environment"}')]
    assert 1 <= float(refused.split()[-1]) <= 3, "it was refused, and did not come again too early"
