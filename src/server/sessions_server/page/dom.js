// Making and changing elements. Everything that people or agents have written goes in as text, never as HTML.

/** @param {string} id */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * Make an element.
 *
 * @param {string} tag
 * @param {Record<string, any>} properties of the element; `class` is its class
 * @param {...(Node|string)} children
 */
export function make(tag, properties = {}, ...children) {
  const { class: names, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  if (names) element.className = names;
  element.append(...children);
  return element;
}

/** Say something in an element, without touching it if it says so already. */
export function say(element, text) {
  const node = element.firstChild;
  if (node === null) element.textContent = text;
  else if (text !== node.data && text.startsWith(node.data)) node.appendData(text.slice(node.data.length));
  else if (text !== node.data) element.textContent = text;
}

/** Show or hide. */
export function show(element, isShown) {
  if (element.hidden === isShown) element.hidden = !isShown;
}

/**
 * Make a list's children be those of `keys`, in this order, moving as little as possible.
 *
 * @param {Element} list
 * @param {string[]} keys
 * @param {(key: string) => Element} build
 * @returns {Element[]} one for each key
 */
export function keyed(list, keys, build) {
  const known = new Map([...list.children].map((child) => [child.dataset.key, child]));
  const wanted = keys.map((key) => known.get(key) ?? build(key));
  const kept = new Set(keys);
  for (const [key, child] of known) if (!kept.has(key)) child.remove();
  for (const [index, child] of wanted.entries()) {
    child.dataset.key = keys[index];
    if (list.children[index] !== child) list.insertBefore(child, list.children[index] ?? null);
  }
  return wanted;
}
