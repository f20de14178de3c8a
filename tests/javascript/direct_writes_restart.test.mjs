// A plain Node process writes `out` while first our server and then the S2 server is killed with -9 and started again.
import assert from "node:assert/strict";
import { before } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { sessions } from "@trigger.dev/sdk";
import { ask, newId, newSession, newTransport, recordsOf, restartS2, restartServer, scenario, topic, until, within } from "./harness.mjs";

const PAUSE_MS = 20;
const GOES_ON = 20; // numbers that are written after each restart

const numbers = (count) => [...Array(count).keys()];

/** Write numbers with one writer until told to stop. */
function writeOn(out) {
  const writer = { count: 0, isOver: false };
  const source = async function* () {
    while (!writer.isOver) {
      yield { type: "data-number", data: writer.count++ };
      await sleep(PAUSE_MS);
    }
  };
  writer.done = out.pipe(source()).waitUntilComplete();
  writer.done.catch(() => {});
  return writer;
}

/** Read numbers as they come, until told to stop. */
function readOn(out) {
  const end = new AbortController();
  const reader = { numbers: [], stop: () => end.abort() };
  reader.done = (async () => {
    const stream = await out.read({ timeoutInSeconds: 60, signal: end.signal });
    try {
      for await (const chunk of stream) reader.numbers.push(chunk.data);
    } catch (error) {
      if (!end.signal.aborted) throw error;
    }
  })();
  reader.done.catch(() => {});
  return reader;
}

topic("a direct writer, and servers that are killed", () => {
  const [id, chatted] = [newId("steady"), newId("chatted")];
  const { out } = sessions.open(id);
  const transport = newTransport();
  let writer, reader, lastEventId, stored;

  const goesOn = async () => {
    const next = writer.count + GOES_ON;
    const isSeen = until(() => reader.numbers.length > next, `number ${next} at the reader`);
    await Promise.race([isSeen, writer.done.then(() => isSeen)]);
  };

  before(async () => {
    await newSession(id, { taskIdentifier: "elsewhere" });
    await ask(transport, chatted, "before");
    reader = readOn(out);
    writer = writeOn(out);
    await goesOn();
    await restartServer();
    await goesOn();
    await restartS2();
    await goesOn();
    writer.isOver = true;
    ({ lastEventId } = await within(writer.done, "the writer's end"));
    stored = await recordsOf(id, "out");
    await until(() => reader.numbers.length >= writer.count, "the last number at the reader");
    reader.stop();
  });

  scenario("all that was written is there, in order", () => {
    const once = new Map(stored.map((record) => [record.id, record.data.data])); // The SDK sends a batch again whose answer was lost.
    assert.deepEqual([...once.values()], numbers(writer.count));
    assert.equal(stored.at(-1).seqNum, Number(lastEventId));
  });

  scenario("a reader that was there all the time has seen each number once", async () => {
    await reader.done;
    assert.deepEqual(reader.numbers, numbers(writer.count));
  });

  scenario("the handle writes and controls with the credentials that it had", async () => {
    await out.append({ type: "data-number", data: writer.count });
    const control = await out.writeControl("turn-complete");
    const records = await recordsOf(id, "out");
    assert.deepEqual([records.at(-2).data.data, records.at(-1).seqNum], [writer.count, Number(control.lastEventId)]);
  });

  scenario("an agent answers", async () => {
    assert.equal(await ask(transport, chatted, "after"), "you said: after");
  });
});
