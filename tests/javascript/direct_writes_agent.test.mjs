// Agents in TypeScript whose runs plain Node processes carry out: everything on `out` is written by the SDK itself, directly.
import assert from "node:assert/strict";
import { fork } from "node:child_process";
import { createServer } from "node:http";
import { chat } from "@trigger.dev/sdk/ai";
import { chat as warm } from "@trigger.dev/sdk/chat-server";
import { model } from "./model.mjs";
import {
  ask, call, completedTurns, follow, newId, newTransport, recordsOf, runsOf, scenario, send, seqsOf, textOf, topic, until, within,
} from "./harness.mjs";

const TASK = "hosted"; // as in agent_host.mjs
const hosts = [];
process.on("exit", () => hosts.forEach((host) => host.kill("SIGKILL")));

const start = chat.createStartSessionAction(TASK);
const newHosted = (options) => newTransport({ task: TASK, startSession: ({ chatId, clientData }) => start({ chatId, clientData }), ...options });

/** Carry out the session's run in a process of its own; resolves when it has begun. */
async function host(id) {
  const run = await until(async () => (await runsOf(id).catch(() => []))[0], "the run");
  const child = fork("agent_host.mjs", [run.runId], { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  hosts.push(child);
  await within(new Promise((resolve, reject) => child.once("message", resolve).once("exit", reject)), "the run's beginning");
}

const waitsOf = async (id) => (await call("GET", `/api/v1/sessions/${id}/waitpoints`)).body.data;

/** A page's address whose first answer the page's own server begins. */
async function headStart() {
  const handler = warm.headStart({ agentId: TASK, run: async ({ streamText }) => streamText({ model }) });
  const server = createServer(warm.toNodeListener(handler)).unref();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${server.address().port}`;
}

topic("agents that Node hosts", () => {
  scenario("an agent answers two turns, and a stop ends the third", async () => {
    const id = newId("hosted");
    const transport = newHosted();
    await transport.preload(id);
    await host(id);
    assert.equal(await ask(transport, id, "one"), "1: one");
    assert.equal(await ask(transport, id, "two"), "2: two");
    const third = follow(await send(transport, id, "endless three"));
    await until(() => third.text().includes(" 2"), "the third delta");
    assert.equal(await transport.stopGeneration(id), true);
    await within(third.done, "the stopped stream");
    assert.ok(!third.text().includes(" 299"));
    assert.equal(await ask(transport, id, "four"), "4: four");
    const answered = (await completedTurns(id)).at(-1)["session-in-event-id"];
    assert.equal(Number(answered), (await seqsOf(id, "in")).at(-1));
    assert.ok((await seqsOf(id, "out"))[0] > 0, "the agent has let earlier turns go");
    assert.equal((await runsOf(id)).length, 1);
  });

  scenario("an agent that waits is woken by the next message", async () => {
    const id = newId("suspended");
    const transport = newHosted();
    await transport.preload(id);
    await host(id);
    assert.equal(await ask(transport, id, "one"), "1: one");
    await until(async () => (await waitsOf(id)).length, "the agent to suspend");
    assert.equal(await ask(transport, id, "two"), "2: two");
  });

  scenario("a page's own server begins the first answer, and the agent goes on from there", async () => {
    const id = newId("warm");
    const transport = newHosted({ headStart: await headStart() });
    const first = textOf(await send(transport, id, "one"));
    await host(id);
    assert.equal(await within(first, "the first answer"), "1: one");
    assert.equal(await ask(transport, id, "two"), "2: two");
    assert.equal((await completedTurns(id)).length, 2);
    assert.equal((await runsOf(id)).length, 1);
    assert.deepEqual((await recordsOf(id, "in")).map((record) => JSON.parse(record.data).kind), ["handover", "message"]);
  });
});
