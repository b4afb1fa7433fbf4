// Asks before every line it would send. BREAKER_DEFAULT (admit or reject) holds if nobody answers.
import { createInterface } from "node:readline";

const { BREAKER_SIDECAR_ADDRESS: address = "localhost:9100", BREAKER: name = "default" } = process.env;
const noAnswer = `${process.env.BREAKER_DEFAULT ?? "admit"} no-answer`;

async function ask() {
  try {
    const answer = await fetch(`http://${address}/allowed/${name}`, { signal: AbortSignal.timeout(250) });
    await answer.arrayBuffer(); // read to its end, so that fetch keeps the connection (after HEAD it doesn't)
    if (!answer.headers.has("x-breaker")) return noAnswer; // somebody else, or no such breaker
    return answer.ok ? "admit" : `reject ${answer.headers.get("retry-after")}`;
  } catch {
    return noAnswer; // refused, reset or late
  }
}

for await (const _message of createInterface({ input: process.stdin })) console.log(await ask());
