// `sessions.open(id)` and the API client's own calls: the two channels without a chat on top.
import assert from "node:assert/strict";
import { createServer, request } from "node:http";
import { auth, sessions } from "@trigger.dev/sdk";
import { KEY, SERVER, atOnce, call, client, message, newId, newSession, readTurn, recordsOf, runsOf, scenario, seqsOf, topic, until, within } from "./harness.mjs";

const append = (id, body, partId) =>
  call("POST", `/realtime/v1/sessions/${encodeURIComponent(id)}/in/append`, { body, headers: { "X-Part-Id": partId } });

/** A proxy that swallows the answer to the first append, as a network does that breaks at the wrong moment. */
async function losingFirstAnswer() {
  const partIds = [];
  const proxy = createServer((incoming, outgoing) => {
    const { method, url, headers } = incoming;
    partIds.push(headers["x-part-id"]);
    const isFirst = partIds.length === 1;
    const passed = request(SERVER + url, { method, headers }, (answer) => {
      if (isFirst) answer.resume().on("end", () => outgoing.destroy());
      else answer.pipe(outgoing.writeHead(answer.statusCode, answer.headers));
    });
    incoming.pipe(passed);
  });
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  return { address: `http://127.0.0.1:${proxy.address().port}`, partIds, close: () => proxy.close() };
}

topic("channels", () => {
  scenario("in.send wakes the agent and out.read gives its answer", async () => {
    const id = newId("open");
    const { id: sessionId } = await newSession(id);
    await sessions.open(id).in.send(message("hello"));
    const turn = await readTurn(id);
    assert.equal(turn.text, "you said: hello");
    const [seq] = await seqsOf(id, "in");
    assert.deepEqual([turn.control.subtype, Object.fromEntries(turn.control.headers)["session-in-event-id"]], ["turn-complete", String(seq)]);
    assert.equal((await readTurn(sessionId)).text, "you said: hello");
  });

  scenario("out.read goes on after the event it is given", async () => {
    const id = newId("resume");
    await newSession(id);
    await sessions.open(id).in.send(message("one"));
    const first = await readTurn(id);
    await sessions.open(id).in.send(message("two"));
    const second = await readTurn(id, first.control.seqNum);
    assert.deepEqual([first.text, second.text], ["you said: one", "you said: two"]);
    assert.ok(second.control.seqNum > first.control.seqNum);
  });

  scenario("out.read from any event gives exactly what follows it", async () => {
    const id = newId("every");
    await newSession(id);
    await sessions.open(id).in.send(message("slow"));
    const { control } = await readTurn(id);
    const records = await recordsOf(id, "out");
    for (const last of [0, 1, 5, control.seqNum - 1]) {
      const { chunks } = await readTurn(id, last);
      assert.deepEqual(chunks, records.filter((record) => record.seqNum > last && !record.headers).map((record) => record.data));
    }
  });

  scenario("out.read of a silent session ends cleanly after its timeout", async () => {
    const id = newId("silent");
    await newSession(id);
    const stream = await sessions.open(id).out.read({ timeoutInSeconds: 1 });
    for await (const chunk of stream) assert.fail(`nobody has written ${chunk}`);
  });

  scenario("out.read may begin before the session exists", async () => {
    const id = newId("early");
    const turn = readTurn(id);
    await newSession(id);
    await sessions.open(id).in.send(message("now"));
    assert.equal((await within(turn, "the turn")).text, "you said: now");
  });

  scenario("in.send keeps texts as they are", async () => {
    const id = newId("texts");
    await newSession(id);
    const texts = ["", "no json {", '"a string"', "\u0000 and \u2028", "slow and 会話 🦉"];
    for (const text of texts.slice(1)) await sessions.open(id).in.send(text);
    assert.deepEqual((await recordsOf(id, "in")).map((record) => record.data), texts.slice(1));
  });

  scenario("a retry with the same part id stores nothing and answers the first seq", async () => {
    const id = newId("retry");
    await newSession(id);
    const body = JSON.stringify(message("once"));
    const answers = await Promise.all(Array.from({ length: 8 }, () => append(id, body, "part-1")));
    const [seq] = await seqsOf(id, "in");
    assert.deepEqual(new Set(answers.map(({ status, body }) => `${status} ${body.ok} ${body.seq}`)), new Set([`200 true ${seq}`]));
    assert.equal((await append(id, body, "part-2")).body.seq, seq + 1);
    assert.deepEqual((await recordsOf(id, "in")).map((record) => record.id), ["part-1", "part-2"]);
  });

  scenario("an append whose answer was lost is repeated by the client and stored once", async () => {
    const id = newId("lost");
    await newSession(id);
    const proxy = await losingFirstAnswer();
    try {
      await auth.withAuth({ baseURL: proxy.address, accessToken: KEY }, () => sessions.open(id).in.send(message("once")));
    } finally {
      proxy.close();
    }
    assert.equal(proxy.partIds.length, 2);
    assert.equal(proxy.partIds[0], proxy.partIds[1]);
    assert.deepEqual((await recordsOf(id, "in")).map((record) => record.id), [proxy.partIds[0]]);
    await readTurn(id);
    assert.equal((await recordsOf(id, "out")).filter((record) => record.headers).length, 1);
  });

  scenario("records are drained after an event, with the headers of control records", async () => {
    const id = newId("drain");
    await newSession(id);
    assert.deepEqual(await recordsOf(newId("nobody"), "out"), []);
    await sessions.open(id).in.send(message("hello"));
    const { control } = await readTurn(id);
    const { records } = await client().readSessionStreamRecords(id, "out", { afterEventId: String(control.seqNum - 1) });
    assert.equal(records.length, 1);
    assert.deepEqual([records[0].data, records[0].headers[0]], ["", ["trigger-control", "turn-complete"]]);
  });

  scenario("a run that has left is replaced when a message arrives", async () => {
    const id = newId("left");
    await newSession(id);
    await sessions.open(id).in.send(message("leave now"));
    const { control } = await readTurn(id);
    const [first] = await runsOf(id);
    await until(async () => (await call("GET", `/api/v1/runs/${first.runId}`)).body.status === "COMPLETED_SUCCESSFULLY", "the run's end");
    await sessions.open(id).in.send(message("anybody?"));
    assert.equal((await readTurn(id, control.seqNum)).text, "you said: anybody?");
    assert.deepEqual((await runsOf(id)).map((run) => run.reason), ["continuation", "initial"]);
  });

  scenario("out is written directly", async () => {
    const id = newId("direct");
    await newSession(id);
    await atOnce(sessions.open(id).out.append({ type: "data-x", data: 1 }), "the ack");
    assert.deepEqual((await recordsOf(id, "out")).map((record) => record.data).filter(Boolean), [{ type: "data-x", data: 1 }]);
  });

  scenario("an answer arrives as it is written", async () => {
    const id = newId("live");
    await newSession(id);
    await sessions.open(id).in.send(message("endless"));
    const reader = (await sessions.open(id).out.read({ timeoutInSeconds: 10 })).getReader();
    assert.equal((await atOnce(reader.read(), "the first chunk")).value.type, "start");
    await reader.cancel();
    await sessions.open(id).in.send({ kind: "stop" });
    assert.match((await readTurn(id)).text, /^you said: endless/);
  });
});
