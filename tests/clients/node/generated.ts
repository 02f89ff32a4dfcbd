// A small program on a generated client: it compiles only if the types that openapi-typescript writes are right.
import createClient from "openapi-fetch";
import type { components, paths } from "./api";

type Schemas = components["schemas"];
declare const process: { argv: [string, string, string, string] };

const client = createClient<paths>({ baseUrl: process.argv[2] });

/** The text that an event of the stream adds; the type of the event decides which fields it has. */
export function textOf(event: Schemas["Event"]): string {
  switch (event.type) {
    case "text.delta":
      return event.text;
    case "citation":
      return ` [${event.n}]`;
    case "run.failed":
      throw new Error(`${event.error.code}: ${event.error.message}`);
    default:
      return "";
  }
}

function partOf(part: Schemas["MessagePart"]): string {
  return part.type === "text" || part.type === "reasoning" ? part.text : "";
}

const form = new FormData();
form.append("file", new Blob([process.argv[3]]), "terms.md");
const upload = await client.POST("/documents/upload", {
  params: { query: { wait: true } },
  body: { file: [] },
  bodySerializer: () => form,
});
if (upload.error) throw new Error(upload.error.detail);

const { data: answer, error } = await client.POST("/chat", {
  params: { header: { "Idempotency-Key": crypto.randomUUID() } },
  headers: { Accept: "application/json" },
  body: { message: "How long is the notice period?" } as Schemas["ChatRequest"],
});
if (error) throw new Error(error.detail);
const { text, citations } = answer as Schemas["Answer"];
const cited = citations.map(({ start, end }) => [...text].slice(start, end).join(""));

const { data: sessions } = await client.GET("/sessions", { params: { query: { limit: 1 } } });
const session_id: string = sessions!.items[0]!.id;
const { data: messages } = await client.GET("/sessions/{session_id}/messages", { params: { path: { session_id } } });
const parts = messages!.items[1]!.parts.map(partOf).filter((part) => part !== "");
console.log(JSON.stringify({ text, cited, parts }));
