// A component in StrictMode that uses the hook of ./snippet.mjs: it asks two questions, one after the other, and writes
// what it showed at the end of each.
import { Window } from "happy-dom";

const page = new Window();
globalThis.document = page.document;
Object.defineProperty(globalThis, "navigator", { value: { userAgent: "" }, configurable: true });
const { StrictMode, createElement, useEffect } = await import("react");
const { createRoot } = await import("react-dom/client");
const { useAnswer } = await import("./snippet.mjs");

let changed = () => {};
let sendQuestion;

function Page() {
  const [answer, send] = useAnswer();
  useEffect(() => {
    sendQuestion = send;
    changed(answer);
  }, [answer, send]);
  return createElement("p", null, answer.text);
}

const until = (isWanted) => new Promise((found) => (changed = (answer) => isWanted(answer) && found(answer)));

const isReady = until(() => true);
createRoot(page.document.body).render(createElement(StrictMode, null, createElement(Page)));
await isReady;
const shown = [];
for (const question of ["How long is the notice period?", "And then?"]) {
  const isEmpty = until((answer) => !answer.done && answer.text === "");
  void sendQuestion(question);
  await isEmpty;
  shown.push(await until((answer) => answer.done));
}
console.log(JSON.stringify(shown));
process.exit(0);
