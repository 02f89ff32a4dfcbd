// What a browser has and Node has not, as far as the clients ask for it: a page that is always visible.
// Loaded before a script: node --import ./browser.mjs script.mjs
import { webcrypto } from "node:crypto";
import { EventSource } from "eventsource";

globalThis.crypto ??= webcrypto; // a global since Node 20
globalThis.window = globalThis; // fetch, setTimeout and clearTimeout are Node's own
globalThis.document = Object.assign(new EventTarget(), { hidden: false });
globalThis.EventSource = EventSource;
