// Push an image to a line through the gateway from Node 18 or newer, without packages.
//
//   node examples/push_from_node.mjs postcards item.jpg 000017
//
// GATEWAY_URL: http://127.0.0.1:8080 unless set. GATEWAY_TOKEN: where the gateway has a token file.
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

const [line, image, item] = process.argv.slice(2);
const url = process.env.GATEWAY_URL ?? "http://127.0.0.1:8080";
const headers = { "content-type": "application/octet-stream", "pigeonhole-item": encodeURIComponent(item) };
if (process.env.GATEWAY_TOKEN) headers.authorization = `Bearer ${process.env.GATEWAY_TOKEN}`;
const body = await readFile(image);

for (;;) {
  const answer = await fetch(`${url}/v1/lines/${line}/items?wait`, { method: "POST", headers, body });
  const found = await answer.json();
  if (answer.status === 429 || answer.status === 503) {
    await sleep(found.retry_after_ms); // busy or paused; the same item pushed again gets the same answer
    continue;
  }
  if (!answer.ok) throw new Error(`${answer.status}: ${found.detail}`);
  console.log(found.item, found.bin, found.reason ?? "accepted", found.label);
  break;
}
