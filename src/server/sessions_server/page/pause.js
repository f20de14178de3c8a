/**
 * Wait. Ends early when the browser says that it is online again or somebody is in a hurry.
 *
 * @param {number} milliseconds
 * @param {AbortSignal} signal rejects when it is aborted
 * @param {EventTarget} [hurry] ends the wait with a `hurry` event, as when somebody does not want to wait
 */
export function pause(milliseconds, signal, hurry = new EventTarget()) {
  return new Promise((resolve, reject) => {
    const over = new AbortController();
    const options = { once: true, signal: over.signal };
    const end = (settle) => () => {
      clearTimeout(timer);
      over.abort();
      settle(signal.reason);
    };
    const timer = setTimeout(end(resolve), milliseconds);
    signal.addEventListener("abort", end(reject), options);
    hurry.addEventListener("hurry", end(resolve), options);
    window.addEventListener("online", end(resolve), options);
  });
}
