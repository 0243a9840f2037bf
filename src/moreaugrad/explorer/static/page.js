// The explorer as a page: requests over HTTP, each given up by closing it.
import { mount } from "./explorer.js";
import { messages } from "./maps.js";

const user = crypto.getRandomValues(new Uint32Array(2)).join("-"), root = document.getElementById("explorer");

async function* ask(request, body, signal) {
  const asked = new URLSearchParams({ user, asked: JSON.stringify(request) });
  const answer = await fetch(`api?${asked}`, { method: "POST", body, signal }).catch(error => {
    throw signal?.aborted ? error : new Error("the server does not answer: is it still running?");
  });
  if (!answer.ok) throw new Error(await answer.text());
  for await (const [header, buffer] of messages(answer.body.getReader())) {
    if (header.refused) throw new Error(header.refused);
    yield [header, buffer];
  }
}

root.innerHTML = await (await fetch("explorer.html")).text();
window.explorer = mount(root, ask);
