// `TriggerChatTransport`: what a page with `useChat` does to the server.
import assert from "node:assert/strict";
import { sessions } from "@trigger.dev/sdk";
import {
  ask, completedTurns, follow, newId, newSession, newToken, newTransport, recordsOf, runsOf, scenario, send, seqsOf, slowAnswer, startSession, textOf, topic, until,
  user, within,
} from "./harness.mjs";

const typesOf = (chunks) => chunks.map((chunk) => chunk.type);
const eventsOf = (transport, type) => transport.events.filter((event) => event.type === type);

/** Begin an answer that goes on until it is stopped. */
async function beginEndless(transport, chatId, options) {
  const answer = follow(await send(transport, chatId, "endless", options));
  await until(() => answer.text().includes(" 2"), "the third delta");
  return answer;
}

topic("the transport", () => {
  scenario("preload starts the session, and the first message is answered", async () => {
    const id = newId("first");
    const transport = newTransport();
    await Promise.all([transport.preload(id), transport.preload(id)]);
    assert.equal((await runsOf(id)).length, 1);
    const answer = await within(follow(await send(transport, id, "hello")).done, "the answer");
    assert.deepEqual(typesOf(answer), ["start", "start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"]);
    assert.equal((await sessions.retrieve(id)).taskIdentifier, "echo");
    assert.deepEqual(typesOf(transport.events), ["message-sent", "stream-connected", "first-chunk", "turn-completed"]);
  });

  scenario("a message to an unknown chat starts the session by itself", async () => {
    assert.equal(await ask(newTransport(), newId("lazy"), "hi"), "you said: hi");
  });

  scenario("client data reaches the run and every message", async () => {
    const id = newId("data");
    const transport = newTransport({ clientData: { userId: "u1" } });
    await textOf(await send(transport, id, "hi", { metadata: { page: 2 }, body: { extra: true } }));
    assert.deepEqual((await sessions.retrieve(id)).triggerConfig.basePayload.metadata, { userId: "u1" });
    const { payload } = JSON.parse((await recordsOf(id, "in"))[0].data);
    assert.deepEqual([payload.metadata, payload.extra, payload.chatId], [{ userId: "u1", page: 2 }, true, id]);
  });

  scenario("two turns: each stream holds its own answer", async () => {
    const id = newId("two");
    const transport = newTransport();
    assert.equal(await ask(transport, id, "one"), "you said: one");
    assert.equal(await ask(transport, id, "two"), "you said: two");
    assert.deepEqual((await completedTurns(id)).map((headers) => headers["session-in-event-id"]), (await seqsOf(id, "in")).map(String));
    assert.equal((await runsOf(id)).length, 1);
  });

  scenario("regenerate answers the last message again", async () => {
    const id = newId("again");
    const transport = newTransport();
    await ask(transport, id, "first");
    await ask(transport, id, "second");
    const again = await send(transport, id, "", { trigger: "regenerate-message", messageId: "a1" });
    assert.equal(await textOf(again), "once more: second");
  });

  scenario("a stop ends the turn, and the next answer is not swallowed", async () => {
    const id = newId("stop");
    const transport = newTransport();
    const stopped = await beginEndless(transport, id);
    assert.equal(await transport.stopGeneration(id), true);
    await within(stopped.done, "the stopped stream");
    assert.equal(await ask(transport, id, "and now"), "you said: and now");
    assert.deepEqual((await completedTurns(id)).map((headers) => headers["session-in-event-id"]), (await seqsOf(id, "in")).slice(1).map(String));
  });

  scenario("a stopped turn is completed without another message", async () => {
    const id = newId("halt");
    const transport = newTransport();
    await beginEndless(transport, id);
    await transport.stopGeneration(id);
    await until(async () => (await completedTurns(id)).length === 1, "the turn-complete");
    const types = (await recordsOf(id, "out")).map((record) => record.data.type ?? "control");
    assert.deepEqual(types.slice(-4), ["text-end", "finish-step", "finish", "control"]);
  });

  scenario("a message sent into a running answer waits for its turn", async () => {
    const id = newId("queue");
    const transport = newTransport();
    const first = follow(await send(transport, id, "slow"));
    await until(() => first.text(), "the first delta");
    assert.equal(await transport.sendPendingMessage(id, user("behind")), true);
    await within(first.done, "the first answer");
    assert.equal(first.text(), slowAnswer("slow"));
    await until(async () => (await completedTurns(id)).length === 2, "the second turn");
  });

  scenario("aborting a send is a stop", async () => {
    const id = newId("abort");
    const transport = newTransport();
    const abort = new AbortController();
    const answer = await beginEndless(transport, id, { abortSignal: abort.signal });
    abort.abort();
    await within(answer.done, "the aborted stream");
    await until(async () => (await completedTurns(id)).length === 1, "the turn-complete");
    assert.equal(await ask(transport, id, "and now"), "you said: and now");
  });

  scenario("a stop with nothing to stop does no harm", async () => {
    const id = newId("idle-stop");
    const transport = newTransport();
    await ask(transport, id, "one");
    assert.equal(await transport.stopGeneration(id), true);
    assert.equal(await ask(transport, id, "two"), "you said: two");
  });

  scenario("an action is answered and settles", async () => {
    const id = newId("action");
    const transport = newTransport();
    await ask(transport, id, "one");
    const settled = [];
    const stream = await transport.sendAction(id, { type: "undo", n: [1] }, { onSettled: (fact) => settled.push(fact) });
    assert.equal(await textOf(stream), 'did {"type": "undo", "n": [1]}');
    const [, seq] = await seqsOf(id, "in");
    assert.deepEqual([settled.length, settled[0].inputSeq, settled[0].sessionInEventId], [1, seq, String(seq)]);
    assert.equal(await ask(transport, id, "two"), "you said: two");
  });

  scenario("an agent that raises ends its turn with an error, and goes on with the next", async () => {
    const id = newId("error");
    const transport = newTransport();
    const failed = await within(follow(await send(transport, id, "fail please")).done, "the failed turn");
    assert.deepEqual(typesOf(failed), ["start", "start-step", "text-start", "text-delta", "text-end", "error", "finish-step", "finish"]);
    assert.doesNotMatch(JSON.stringify(failed), /RuntimeError|as it was told/);
    assert.equal(await ask(transport, id, "well?"), "you said: well?");
    assert.equal((await runsOf(id)).length, 1);
  });

  scenario("a hand-over in the middle of a conversation is not seen by the client", async () => {
    const id = newId("upgrade");
    const transport = newTransport();
    assert.equal(await ask(transport, id, "one"), "you said: one");
    assert.equal(await ask(transport, id, "upgrade yourself"), "you said: upgrade yourself");
    assert.equal(await ask(transport, id, "three"), "you said: three");
    assert.deepEqual((await runsOf(id)).map((run) => run.reason), ["upgrade", "initial"]);
  });

  scenario("two clients at one session see the same turns", async () => {
    const id = newId("viewers");
    const writer = newTransport();
    await ask(writer, id, "one");
    const persisted = writer.getSession(id);
    const viewer = newTransport({ watch: true, sessions: { [id]: persisted } });
    const seen = follow(await viewer.reconnectToStream({ chatId: id }));
    assert.equal(await ask(writer, id, "two"), "you said: two");
    assert.equal(await ask(writer, id, "three"), "you said: three");
    await until(() => seen.text() === "you said: twoyou said: three", "both answers");
    await until(() => eventsOf(viewer, "turn-completed").length === 2, "the ends of both turns");
  });

  scenario("two clients that write at once are both answered", async () => {
    const id = newId("writers");
    const { publicAccessToken } = await startSession({ chatId: id });
    const [a, b] = [1, 2].map(() => newTransport({ sessions: { [id]: { publicAccessToken } } }));
    const answers = await Promise.all([ask(a, id, "from a"), ask(b, id, "from b")]);
    assert.match(answers[0], /you said: from a$/);
    assert.match(answers[1], /you said: from b$/);
  });

  scenario("a page without startSession lives on tokens alone", async () => {
    const id = newId("tokens");
    await newSession(id);
    const transport = newTransport({ startSession: undefined, accessToken: ({ chatId }) => newToken(chatId) });
    assert.equal(await ask(transport, id, "hi"), "you said: hi");
  });

  scenario("a chat whose session is gone is started again", async () => {
    const id = newId("gone");
    const persisted = { publicAccessToken: await newToken(id), lastEventId: "77" };
    const transport = newTransport({ sessions: { [id]: persisted } });
    assert.equal(await ask(transport, id, "hi"), "you said: hi");
  });
});
