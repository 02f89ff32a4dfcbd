// Asks POST /chat with @microsoft/fetch-event-source and writes down, a JSON line each, what it is told.
import "./browser.mjs";
import { fetchEventSource } from "@microsoft/fetch-event-source";

const tell = (what) => console.log(JSON.stringify(what));
const [, , url, body] = process.argv;
await fetchEventSource(url, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body,
  fetch: async (input, init) => {
    const response = await fetch(input, init);
    tell({ kind: "response", status: response.status, after: init.headers["last-event-id"] ?? null });
    return response;
  },
  onmessage: ({ id, data }) => tell({ kind: "message", id, data }),
  onclose: () => tell({ kind: "close" }),
  onerror: (error) => {
    tell({ kind: "error", message: String(error) });
    throw error; // or it tries again for ever
  },
});
