// Watches GET /runs/{id}/events with npm's eventsource and writes down, a JSON line each, what it is told. It never
// closes the source: the process ends only when the source gives up by itself.
import { EventSource } from "eventsource";

const tell = (what) => console.log(JSON.stringify(what));
const source = new EventSource(process.argv[2], {
  fetch: async (url, init) => {
    const response = await fetch(url, init);
    tell({ kind: "response", status: response.status, after: init.headers["Last-Event-ID"] ?? null });
    return response;
  },
});
source.onmessage = ({ lastEventId, data }) => tell({ kind: "message", id: lastEventId, data });
source.onerror = ({ code, message }) =>
  tell({ kind: "error", code, message, closed: source.readyState === EventSource.CLOSED });
// Since version 5 its wait for coming back does not keep the process alive.
const awake = setInterval(() => source.readyState === EventSource.CLOSED && clearInterval(awake), 50);
