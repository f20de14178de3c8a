// An unmodified `chat.agent` in a plain Node process. The platform's worker would fill the SDK's slots; here that is done by hand, with the SDK's own
// classes. One process carries out one run, whose id is its argument, as an engine does: it begins the attempt, says that it lives, and completes it.
import { apiClientManager, inputStreams, lifecycleHooks, localsAPI, realtimeStreams, resourceCatalog, runMetadata, runtime, sessionStreams, taskContext } from "@trigger.dev/core/v3";
import {
  StandardInputStreamManager, StandardLifecycleHooksManager, StandardLocalsManager, StandardMetadataManager, StandardRealtimeStreamsManager, StandardResourceCatalog,
  StandardSessionStreamManager,
} from "@trigger.dev/core/v3/workers";
import { chat } from "@trigger.dev/sdk/ai";
import { streamText } from "ai";
import { model } from "./model.mjs";

const SERVER = process.env.TRIGGER_API_URL;
const KEY = process.env.TRIGGER_SECRET_KEY;
const BEAT_MS = 1_000;

async function call(method, path, { body, headers } = {}) {
  const response = await fetch(SERVER + path, { method, body: body && JSON.stringify(body), headers: { Authorization: `Bearer ${KEY}`, ...headers } });
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  return response.json();
}

/** What the platform does for a suspended run: wake it when its waitpoint is over. */
const pollingRuntime = {
  disable() {},
  async waitForWaitpoint({ waitpointFriendlyId }) {
    for (;;) {
      const token = await call("GET", `/api/v1/waitpoints/tokens/${waitpointFriendlyId}`, { headers: { "Timeout-Seconds": "5" } });
      if (token.status === "COMPLETED") return { ok: true, output: token.output, outputType: token.outputType };
      if (token.status !== "WAITING") return { ok: false, output: "{}", outputType: "application/json" };
    }
  },
};

function fillSlots(runId) {
  const api = apiClientManager.clientOrThrow();
  resourceCatalog.setGlobalResourceCatalog(new StandardResourceCatalog());
  resourceCatalog.setCurrentFileContext("agent_host.mjs", "agent_host");
  localsAPI.setGlobalLocalsManager(new StandardLocalsManager());
  lifecycleHooks.setGlobalLifecycleHooksManager(new StandardLifecycleHooksManager());
  runMetadata.setGlobalManager(new StandardMetadataManager(api));
  inputStreams.setGlobalManager(new StandardInputStreamManager(api, SERVER));
  realtimeStreams.setGlobalManager(new StandardRealtimeStreamsManager(api, SERVER));
  sessionStreams.setGlobalManager(new StandardSessionStreamManager(api, SERVER));
  runtime.setGlobalRuntimeManager(pollingRuntime);
  const now = new Date();
  const named = (kind) => ({ id: kind, slug: kind, name: kind });
  const ctx = {
    task: { id: "hosted", filePath: "agent_host.mjs" },
    attempt: { number: 1, startedAt: now },
    run: { id: runId, tags: [], isTest: false, isReplay: false, createdAt: now, startedAt: now },
    machine: { name: "micro", cpu: 1, memory: 0.5, centsPerMs: 0 },
    queue: named("queue"),
    environment: { ...named("environment"), type: "DEVELOPMENT" },
    organization: named("organization"),
    project: { ...named("project"), ref: "project" },
  };
  taskContext.setGlobalTaskContext({ ctx, worker: { id: "worker", version: "1", contentHash: "1", engine: "V2" }, isWarmStart: false });
  return ctx;
}

process.on("disconnect", () => process.exit(1)); // who started it is gone
const runId = process.argv[2];
const run = `/engine/v1/runs/${runId}`;
const ctx = fillSlots(runId);
chat.agent({
  id: "hosted",
  idleTimeoutInSeconds: 1, // then it suspends
  run: async ({ messages, signal }) => streamText({ model, messages, abortSignal: signal }),
});

const begun = await call("POST", `${run}/attempts/start`, { body: { attempt: 1 } });
const headers = { "X-Session-Epoch": String(begun.epoch) };
const beating = setInterval(() => call("POST", `${run}/heartbeat`, { headers }).catch(() => process.exit(1)), BEAT_MS);
process.send?.("begun");
await resourceCatalog.getTask("hosted").fns.run(begun.payload, { ctx, signal: new AbortController().signal });
clearInterval(beating);
await call("POST", `${run}/attempts/complete`, { body: { status: "COMPLETED_SUCCESSFULLY" }, headers });
process.exit(0);
