// The end of a chat, as the transport learns of it.
import assert from "node:assert/strict";
import { sessions } from "@trigger.dev/sdk";
import { ask, atOnce, follow, newId, newSession, newTransport, scenario, send, topic, until, within } from "./harness.mjs";

const isClosed = (reason) => (error) => {
  assert.deepEqual([error.status, error.code, error.closedReason], [409, "session_closed", reason]);
  return true;
};

const closings = (transport) =>
  transport.events.filter((event) => event.type === "session-closed").map(({ reason, source }) => [reason, source]);

/** Count a transport's requests. */
function counting() {
  const counted = { requests: 0 };
  counted.fetch = (url, init) => {
    counted.requests += 1;
    return fetch(url, init);
  };
  return counted;
}

topic("closing", () => {
  scenario("a send to a closed chat is refused at once, and later ones without asking the server", async () => {
    const id = newId("closed");
    const counted = counting();
    const transport = newTransport({ fetch: counted.fetch });
    await ask(transport, id, "hi");
    await sessions.close(id, { reason: "office hours are over" });
    await assert.rejects(atOnce(send(transport, id, "still there?"), "a refusal"), isClosed("office hours are over"));
    assert.deepEqual([transport.sessionStatus(id), transport.sessionClosedReason(id)], ["closed", "office hours are over"]);
    assert.deepEqual(closings(transport), [["office hours are over", "append"]]);
    const before = counted.requests;
    await assert.rejects(send(transport, id, "really?"), isClosed("office hours are over"));
    assert.equal(await transport.reconnectToStream({ chatId: id }), null);
    assert.equal(await transport.stopGeneration(id), false);
    assert.equal(counted.requests, before);
  });

  scenario("a chat that is closed in the middle of an answer ends, and its reader knows why", async () => {
    const id = newId("cut");
    const transport = newTransport();
    const answer = follow(await send(transport, id, "endless"));
    await until(() => answer.text().includes(" 2"), "the third delta");
    await sessions.close(id, { reason: "enough" });
    await atOnce(answer.done, "the end of the stream");
    assert.deepEqual(closings(transport), [["enough", "stream"]]);
    assert.equal(transport.getSession(id).closed, true);
  });

  scenario("an agent that closes its session tells the reader with its last record", async () => {
    const id = newId("bye");
    const transport = newTransport();
    assert.equal(await ask(transport, id, "bye"), "you said: bye");
    assert.deepEqual(closings(transport), [["said bye", "stream"]]);
    await assert.rejects(send(transport, id, "one more"), isClosed("said bye"));
  });

  scenario("a viewer of an idle chat learns that it is closed", async () => {
    const id = newId("viewer");
    const writer = newTransport();
    await ask(writer, id, "hi");
    const viewer = newTransport({ watch: true, sessions: { [id]: writer.getSession(id) } });
    const seen = follow(await viewer.reconnectToStream({ chatId: id }));
    await sessions.close(id, { reason: "over" });
    await until(() => viewer.sessionStatus(id) === "closed", "the news");
    viewer.dispose();
    await within(seen.done, "the end of the stream");
  });

  scenario("an expired session is closed to its clients", async () => {
    const id = newId("expired");
    const { publicAccessToken, expiresAt } = await newSession(id, { expiresAt: new Date(Date.now() + 3000).toISOString() });
    const transport = newTransport({ sessions: { [id]: { publicAccessToken } } });
    await until(() => Date.now() > expiresAt.getTime(), "its time to be over");
    await assert.rejects(atOnce(send(transport, id, "late"), "a refusal"), isClosed("expired"));
  });
});
