// What the scenarios share: the server's address, transports that are let go of, and waiting with a limit.
import { after, describe, it } from "node:test";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { apiClientManager } from "@trigger.dev/core/v3";
import { auth, sessions } from "@trigger.dev/sdk";
import { chat } from "@trigger.dev/sdk/ai";
import { TriggerChatTransport } from "@trigger.dev/sdk/chat";

/** The SDK reads the same two variables by itself. */
export const SERVER = process.env.TRIGGER_API_URL;
export const KEY = process.env.TRIGGER_SECRET_KEY;

/** Whether the log checks who writes directly: ours does, s2-lite does not. */
export const IS_SCOPED = process.env.DIRECT_WRITES !== "unchecked";

const SCENARIO_MS = 35_000;
const WAIT_MS = 25_000; // A run whose server was killed counts as alive for 15 s where servers share a database.
const AT_ONCE_MS = 4_000; // An SDK that retries needs nine seconds, and a stream that waits for more two minutes.
const SLOW_DELTAS = 30; // as in agents.py
const POLL_MS = 20;
const LAST_WORDS_MS = 1_000; // for the reporter to write down how the last scenario ended

const transports = [];
let names = 0;

/** Group the scenarios of a file. They run side by side, so each uses chats of its own. */
export function topic(title, define) {
  describe(title, { concurrency: true }, () => {
    define();
    after(() => {
      transports.forEach((transport) => transport.dispose());
      // The SDK may leave a timer of a minute behind, for which nobody has to wait.
      setTimeout(() => process.exit(), LAST_WORDS_MS).unref();
    });
  });
}

/** One scenario. Its name is a plain string literal in double quotes: harness/scenarios.py looks for them. */
export function scenario(name, run) {
  it(name, { timeout: SCENARIO_MS }, run);
}

export const newId = (about) => `${about}-${process.pid}-${++names}`;

/** What an application's server would do for its browsers: create the session with the secret key. */
export const startSession = chat.createStartSessionAction("echo");

/** The official transport as a page would make it, with what happened to it in `.events`. */
export function newTransport(options = {}) {
  const events = [];
  const transport = new TriggerChatTransport({
    task: "echo",
    baseURL: SERVER,
    startSession: ({ chatId, clientData }) => startSession({ chatId, clientData }),
    accessToken: ({ chatId }) => newToken(chatId),
    onEvent: (event) => events.push(event),
    ...options,
  });
  transports.push(transport);
  return Object.assign(transport, { events });
}

/** A token for one session, signed by the SDK itself with the root key. */
export const newToken = (id, options = {}) =>
  auth.createPublicToken({ scopes: { read: { sessions: id }, write: { sessions: id } }, ...options });

/** A token whose time is over. */
export const expiredToken = (id) => newToken(id, { expirationTime: new Date(Date.now() - 60_000) });

export const user = (text) => ({ id: newId("m"), role: "user", parts: [{ type: "text", text }] });

/** Send a user's text, as the AI SDK does. */
export const send = (transport, chatId, text, options = {}) =>
  transport.sendMessages({ trigger: "submit-message", chatId, messages: [user(text)], ...options });

/** Send a user's text and read the whole answer. */
export const ask = async (transport, chatId, text) => textOf(await send(transport, chatId, text));

/** Read chunks as they come into `.chunks`; `.done` settles at the end of the stream. */
export function follow(stream) {
  const chunks = [];
  const done = (async () => {
    for await (const chunk of stream) chunks.push(chunk);
    return chunks;
  })();
  done.catch(() => {});
  return { chunks, done, text: () => joined(chunks) };
}

export const joined = (chunks) =>
  chunks.filter((chunk) => chunk.type === "text-delta").map((chunk) => chunk.delta).join("");

export const textOf = async (stream) => joined(await within(follow(stream).done, "the end of an answer"));

/** The answer to a `slow` text. */
export const slowAnswer = (said) => `you said: ${said}` + Array.from({ length: SLOW_DELTAS - 1 }, (_, n) => ` ${n + 1}`).join("");

/** The text parts of a UI message, with a bar between them. */
export const messageText = (message) =>
  message.parts
    .filter((part) => part.type === "text")
    .map((part) => part.text)
    .join("|");

/** Wait until `look` gives something, and return it. */
export async function until(look, what) {
  const deadline = Date.now() + WAIT_MS;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    if (Date.now() > deadline) throw new Error(`waited in vain for ${what}`);
    await sleep(POLL_MS);
  }
}

/** The promise's value, or an error if it takes too long. */
export async function within(promise, what, milliseconds = WAIT_MS) {
  const limit = new AbortController();
  const late = sleep(milliseconds, undefined, { signal: limit.signal }).then(() => {
    throw new Error(`${what} took longer than ${milliseconds} ms`);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    limit.abort();
    late.catch(() => {});
  }
}

/** The same for what must not take a retry, nor the end of a long poll. */
export const atOnce = (promise, what) => within(promise, what, AT_ONCE_MS);

/** Call the server with the secret key, for what the SDK has no call for. */
export async function call(method, path, { body, headers = {}, token = KEY } = {}) {
  const response = await fetch(SERVER + path, { method, body, headers: { Authorization: `Bearer ${token}`, ...headers } });
  return { status: response.status, headers: response.headers, body: await response.json() };
}

/** The SDK's own API client, for calls that have no place in `sessions`. */
export const client = () => apiClientManager.clientOrThrow();

export const recordsOf = async (id, io) => (await client().readSessionStreamRecords(id, io)).records;

/** Where the records are. A seq is not a count: logs may use some for themselves. */
export const seqsOf = async (id, io) => (await recordsOf(id, io)).map((record) => record.seqNum);

const controlsOf = (records) =>
  records.filter((record) => record.headers).map((record) => Object.fromEntries(record.headers));

export const completedTurns = async (id) =>
  controlsOf(await recordsOf(id, "out")).filter((headers) => headers["trigger-control"] === "turn-complete");

export const runsOf = async (id) => (await call("GET", `/api/v1/sessions/${encodeURIComponent(id)}/runs`)).body.data;

/** The `in` record of a user's text, for those who write without a chat client. */
export const message = (text) => ({ kind: "message", payload: { trigger: "submit-message", message: user(text) } });

export const newSession = (externalId, more = {}) =>
  sessions.start({ type: "chat.agent", externalId, taskIdentifier: "echo", triggerConfig: { basePayload: {} }, ...more });

/** Read `out` up to the next turn-complete, which is also where reading on has to begin. */
export async function readTurn(id, lastEventId) {
  const end = new AbortController();
  const seen = { chunks: [], control: undefined };
  const stream = await sessions.open(id).out.read({
    lastEventId,
    timeoutInSeconds: 10,
    signal: end.signal,
    onControl: (control) => {
      seen.control = control;
      end.abort();
    },
  });
  try {
    for await (const chunk of stream) seen.chunks.push(chunk);
  } catch (error) {
    if (!end.signal.aborted) throw error;
  }
  return { ...seen, text: joined(seen.chunks) };
}

/** Have something done outside, and wait until it is. One order at a time. */
async function order(what) {
  const answers = createInterface({ input: process.stdin });
  process.stdout.write(`${what}\n`);
  await new Promise((resolve) => answers.once("line", resolve));
  answers.close();
}

/** Have the server killed with SIGKILL and started again on its port; resolves when it listens. */
export const restartServer = () => order("restart the server");

/** The same for the S2 server that has the channels. */
export const restartS2 = () => order("restart S2");
