// A language model for agents in Node, without a network.
import { simulateReadableStream } from "ai";
import { MockLanguageModelV3 } from "ai/test";

const DELTAS = 300;
const PAUSE_MS = 100;
const USAGE = { inputTokens: { total: 1, noCache: 1 }, outputTokens: { total: 1, text: 1 } };

/** Says which of the user's messages this is and what it said; for half a minute, if it begins with `endless`. */
export const model = new MockLanguageModelV3({
  doStream: async ({ prompt }) => {
    const said = prompt.at(-1).content.map((part) => part.text).join("");
    const users = prompt.filter((message) => message.role === "user").length;
    const more = said.startsWith("endless") ? Array.from({ length: DELTAS - 1 }, (_, n) => ` ${n + 1}`) : [];
    const deltas = [`${users}: ${said}`, ...more].map((delta) => ({ type: "text-delta", id: "t", delta }));
    const finish = { type: "finish", finishReason: { unified: "stop", raw: "stop" }, usage: USAGE };
    const chunks = [{ type: "stream-start", warnings: [] }, { type: "text-start", id: "t" }, ...deltas, { type: "text-end", id: "t" }, finish];
    return { stream: simulateReadableStream({ chunks, initialDelayInMs: null, chunkDelayInMs: more.length ? PAUSE_MS : null }) };
  },
});
